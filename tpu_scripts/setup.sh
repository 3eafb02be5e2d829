#!/usr/bin/env bash
# Brings this checkout's last commit to every worker of a queued resource, and installs it there with Python 3.12 and pinned packages.
#   tpu_scripts/setup.sh --name=pod --zone=us-east5-a --project=mine
# Run it again after a commit: what is there is brought up to date. Required: --name, --zone, --project, as for create.sh.   Optional:
#   --extras=text,tpu      of pyproject.toml (text,tpu: the text extra has TensorFlow, which reads and writes gs://)
#   --ignore_uncommitted   send the last commit though files differ from it: the changes are not sent
#   --internal_ip, --tunnel_through_iap   how the workers are reached, as gcloud has it
#   --dry_run              print the commands and run none; --help
# Exit codes: 0 all workers are set up; 1 one of them is not, and says why; 2 this command is wrong.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=queued_resource.sh
. "$(dirname "${BASH_SOURCE[0]}")/queued_resource.sh"

extras=text,tpu ignore_uncommitted=""
while [ $# -gt 0 ]; do
  case $1 in
    --extras=*) extras=${1#*=} ;;
    --ignore_uncommitted) ignore_uncommitted=1 ;;
    *) take_flag "$1" || refuse_flag "$1" ;;
  esac
  shift
done
[[ $extras =~ ^[a-z]+(,[a-z]+)*$ ]] || fail 2 "--extras=$extras is no list of extras." "They are named in pyproject.toml: text,tpu"
require_resource

repository=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel 2> /dev/null) ||
  fail 2 "this is no git checkout." "What is sent to the workers is a commit, so that a run can say what it was. git clone it."
changed=$(git -C "$repository" status --porcelain | head -n 5)
if [ -n "$changed" ] && [ -z "$ignore_uncommitted$dry_run" ]; then
  fail 2 "files differ from the last commit, and only commits are sent:" "$changed" "Commit them, or give --ignore_uncommitted."
fi

bundle=$(git -C "$repository" rev-parse --absolute-git-dir)/cptjax.bundle
pack=(git -C "$repository" bundle create --quiet "$bundle" HEAD)
unpack='git init --quiet cptjax && git -C cptjax fetch --quiet ../cptjax.bundle HEAD && git -C cptjax checkout --quiet --detach FETCH_HEAD'
send() {
  queued_resources scp "$bundle" "$name:cptjax.bundle" ${reach[@]+"${reach[@]}"} --node=all --worker=all --quiet
}
install() { on_workers all all "$unpack && $(quoted bash cptjax/tpu_scripts/on_worker/install.sh "$extras")"; }

if [ -n "$dry_run" ]; then
  quoted "${pack[@]}"
  send
  install
  exit
fi
"${pack[@]}"
send || fail 1 "the code did not reach every worker of $name; gcloud says above which." \
  "With several workers it wants your key in an agent: ssh-add ~/.ssh/google_compute_engine"
count_workers || fail 1 "gcloud cannot tell the workers of $name." "create.sh --wait waits until it has some."
ready=$(install | tee /dev/stderr | grep -c '^cptjax is ready on ') || true
[ "$ready" = $((node_count * workers)) ] ||
  fail 1 "$ready of the $((node_count * workers)) workers of $name are set up; what went wrong stands above." \
    "The same command again does what is missing."
say "$name is set up: $((node_count * workers)) workers."
