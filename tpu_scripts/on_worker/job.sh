#!/usr/bin/env bash
# A job on this worker, which goes on when the connection that started it breaks. run.sh calls it through ssh:
#   job.sh start JOB ATTEMPT COMMAND...   job.sh status JOB   job.sh log JOB FROM_BYTE   job.sh stop JOB
# An attempt's folder, ~/cptjax_jobs/JOB/ATTEMPT, has command, log, pid, and, when it is over, exit.
set -euo pipefail
verb=$1 job=$2
shift 2
jobs=$HOME/cptjax_jobs/$job
# The attempt that the link names now, followed once: another may begin while this one is asked for.
find_current() {
  newest=$(readlink "$jobs/current" || echo none)
  current=$jobs/$newest
}
find_current
boot=$(cat /proc/sys/kernel/random/boot_id 2> /dev/null || echo none) # a process number means nothing after a reboot

# none, running, exited, stopped (exited, and was told to), lost (it is not there, and did not say how it ended)
state_now() {
  if [ ! -e "$current/keeper" ]; then
    echo none
    return
  fi
  local boot_then keeper alive=""
  read -r boot_then keeper < "$current/keeper"
  # Alive first, then how it ended: the keeper writes that last, so one that is gone without it never will.
  [ "$boot_then" != "$boot" ] || ! kill -0 "$keeper" 2> /dev/null || alive=yes
  if [ -e "$current/exit" ]; then
    if [ -e "$current/stopped" ]; then echo stopped; else echo exited; fi
  elif [ -n "$alive" ]; then
    echo running
  else
    echo lost
  fi
}

case $verb in
  start)
    attempt=$1
    shift
    mkdir -p "$jobs"
    # gcloud repeats a command whose connection broke: an attempt that has begun is not begun again.
    exec 9> "$jobs/lock"
    flock 9
    find_current
    [ ! -e "$jobs/$attempt/keeper" ] || exit 0
    if [ "$(state_now)" = running ]; then
      echo "job $job is running on $(hostname) since $newest" >&2
      exit 3
    fi
    mkdir -p "$jobs/$attempt"
    ln -sfn "$attempt" "$jobs/current"
    printf '%s\n' "$@" > "$jobs/$attempt/command"
    setsid nohup bash "$0" keep "$job" "$attempt" "$@" > "$jobs/$attempt/log" 2>&1 < /dev/null 9>&- &
    echo "$boot $!" > "$jobs/$attempt/keeper.new"
    mv "$jobs/$attempt/keeper.new" "$jobs/$attempt/keeper"
    ;;
  keep) # not for people: the process that outlives the connection and notes how the command ended
    folder=$jobs/$1
    shift
    cd "$HOME/cptjax"
    export PATH="$HOME/cptjax_env/bin:$PATH" PYTHONUNBUFFERED=1
    code=0
    # shellcheck disable=SC2016
    bash -c 'echo "$$" > "$0/pid" && exec "$@"' "$folder" "$@" || code=$?
    echo "$code" > "$folder/exit.new"
    mv "$folder/exit.new" "$folder/exit"
    ;;
  status)
    state=$(state_now) code=- # the state first: a job that ends in between is told as running, not as one without a code
    case $state in exited | stopped) code=$(cat "$current/exit") ;; esac
    echo "cptjax-job $(hostname) $newest $state $code"
    ;;
  log) [ ! -e "$current/log" ] || tail -c "+$(($1 + 1))" "$current/log" ;;
  stop)
    if [ "$(state_now)" = running ]; then
      touch "$current/stopped"
      kill -TERM "$(cat "$current/pid")"
    fi
    ;;
  *)
    echo "job.sh knows no '$verb'" >&2
    exit 2
    ;;
esac
