"""Asking for TPUs and giving them back: what gcloud is called with, once, and what is said where it refuses."""

import shlex

import pytest
from tpu_cloud import HEREABOUTS, TPUS, WHERE


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("--topology=v4:4x4x4",), ["--type=v4", "--topology=4x4x4", "--runtime-version=tpu-ubuntu2204-base"]),
        (("--topology=v5e:4x4",), ["--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"]),
        (("--topology=v5p:8x8x8",), ["--accelerator-type=v5p-1024", "--runtime-version=v2-alpha-tpuv5"]),
        (("--topology=v6e:8x8",), ["--accelerator-type=v6e-64", "--runtime-version=v2-alpha-tpuv6e"]),
        (("--accelerator_type=v4-8",), ["--accelerator-type=v4-8", "--runtime-version=tpu-ubuntu2204-base"]),
        (("--topology=v6e:2x4", "--runtime_version=mine"), ["--accelerator-type=v6e-8", "--runtime-version=mine"]),
    ],
)
@pytest.mark.parametrize("slices", [1, 2])
def test_a_topology_is_asked_for_by_the_name_that_google_has_for_it(cloud, asked, expected, slices):
    done = cloud.run("create", *WHERE, *asked, f"--slices={slices}", "--spot", "--dry_run", "--", "--network=a b")
    nodes = ["--node-id=pod"] if slices == 1 else ["--node-count=2", "--node-prefix=pod"]
    command = [
        "gcloud",
        "compute",
        "tpus",
        "queued-resources",
        "create",
        "pod",
        *expected,
        *nodes,
        "--spot",
        "--network=a b",
    ]
    assert shlex.split(done.stdout.splitlines()[-1]) == [*command, *HEREABOUTS]
    assert not cloud.calls()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((*HEREABOUTS, *TPUS), "Give --name=NAME"),
        (("--name=Pod_1", *HEREABOUTS, *TPUS), "no name that Google Cloud takes"),
        (("--name=pod", "--project=mine", *TPUS), "Give --zone=ZONE, or set CLOUDSDK_COMPUTE_ZONE"),
        (("--name=pod", "--zone=us-east5-a", *TPUS), "Give --project=PROJECT, or set CLOUDSDK_CORE_PROJECT"),
        ((*WHERE, "--spot"), "which TPU?"),
        ((*WHERE, "--topology=v5e:4x4"), "--spot, --on_demand or --reserved?"),
        ((*WHERE, *TPUS, "--reserved"), "--spot and --reserved exclude each other"),
        ((*WHERE, "--topology=v5e:4x5", "--spot"), "v5e:4x5 is no slice of v5e"),
        ((*WHERE, "--topology=v5p:4x4x16", "--spot"), "gcloud alpha compute tpus queued-resources create"),
        ((*WHERE, "--topology=tpu7x:4x4x4", "--spot"), "GKE or Compute Engine"),
        ((*WHERE, "--topology=h100:8", "--spot"), "not understood"),
        ((*WHERE, *TPUS, "--slices=two"), "--slices=two is no number"),
        ((*WHERE, *TPUS, "--sloices=2"), "there is no flag --sloices"),
        ((*WHERE, *TPUS, "--slices", "2"), "Flags are written --flag=value"),
    ],
)
def test_what_is_wrong_with_the_command_is_said_before_gcloud_is_called(cloud, arguments, complaint):
    done = cloud.run("create", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert not cloud.calls()


def test_it_is_asked_for_once_and_not_as_something_else(cloud):
    for _ in range(2):
        done = cloud.run("create", *WHERE, *TPUS, "--wait", "--every=0")
        assert done.returncode == 0, done.stderr
    assert len(cloud.calls("create")) == 1
    other = cloud.run("create", *WHERE, "--topology=v6e:4x4", "--spot")
    assert other.returncode == 2 and "it is a v5litepod-16" in other.stderr


def test_zone_and_project_may_stand_in_the_environment(cloud, monkeypatch):
    options = cloud.options()
    options["env"] |= {"CLOUDSDK_COMPUTE_ZONE": "us-east5-a", "CLOUDSDK_CORE_PROJECT": "mine"}
    monkeypatch.setattr(cloud, "options", lambda: options)
    assert cloud.run("create", "--name=pod", *TPUS).returncode == 0
    assert cloud.calls("create")[0][-2:] == list(HEREABOUTS)


def test_what_was_taken_away_is_asked_for_again_only_when_told(pod):
    pod.change(state="SUSPENDED")
    refused = pod.run("create", *WHERE, *TPUS, "--slices=2")
    assert refused.returncode == 1 and "--replace" in refused.stderr
    assert not pod.calls("delete")
    assert pod.run("create", *WHERE, *TPUS, "--slices=2", "--replace", "--wait", "--every=0").returncode == 0
    assert [call[3] for call in pod.calls("pod") if call[3] in ("create", "delete")] == ["create", "delete", "create"]
    assert "--force" in pod.calls("delete")[0]


def test_a_node_that_was_preempted_counts_as_taken_away_though_the_resource_is_called_active(pod):
    pod.change(node_state="PREEMPTED")
    assert pod.run("create", *WHERE, *TPUS, "--slices=2", "--replace", "--wait", "--every=0").returncode == 0
    assert pod.resource()["node_state"] == "READY" and len(pod.calls("create")) == 2


def test_gclouds_own_words_are_shown_where_it_refuses(cloud):
    cloud.fails(
        {"call": "describe", "status": 1, "stderr": "ERROR: PERMISSION_DENIED: Cloud TPU API has not been used"}
    )
    done = cloud.run("create", *WHERE, *TPUS)
    assert done.returncode == 1 and "PERMISSION_DENIED" in done.stderr and "services enable tpu" in done.stderr
    cloud.fails({"call": "create", "status": 1, "stderr": "ERROR: Quota 'TPUV5sPreemptible' exhausted. Limit 0"})
    done = cloud.run("create", *WHERE, *TPUS, "--wait")
    assert done.returncode == 1 and "Limit 0" in done.stderr


def test_while_it_waits_a_network_that_comes_and_goes_does_not_end_it(cloud):
    cloud.fails({"call": "describe", "skip": 1, "times": 2, "status": 1, "stderr": "ERROR: no route to host"})
    assert cloud.run("create", *WHERE, *TPUS, "--wait", "--every=0").returncode == 0


def test_what_is_deleted_must_be_named_and_meant(pod):
    for arguments, complaint in [(HEREABOUTS, "Give --name=NAME"), (WHERE, "--yes deletes without asking")]:
        done = pod.run("delete", *arguments)
        assert done.returncode == 2 and complaint in done.stderr
    assert not pod.calls("delete")
    dry = pod.run("delete", *WHERE, "--dry_run")
    assert not pod.calls("delete")
    assert pod.run("delete", *WHERE, "--yes").returncode == 0
    assert ["gcloud", *pod.calls("delete")[0]] == shlex.split(dry.stdout)
    again = pod.run("delete", *WHERE, "--yes")
    assert again.returncode == 0 and "nothing to delete" in again.stderr
    assert len(pod.calls("delete")) == 1


@pytest.mark.parametrize(
    "there, asked, words",
    [
        (("--topology=v5p:4x4x4",), ("--topology=v5p:4x4x4", "--slices=2"), "v5p-128 of 1 slices, not 2"),
        (("--topology=v5p:4x4x4", "--slices=2"), ("--topology=v5p:4x4x4",), "v5p-128 of 2 slices, not 1"),
        (("--topology=v4:4x4x4",), ("--topology=v4:2x2x4",), "it is a 4x4x4 of v4"),
        (("--topology=v4:4x4x4",), ("--topology=v5e:4x4",), "it is a 4x4x4 of v4"),
        (("--topology=v5e:4x4",), ("--topology=v4:4x4x4",), "it is a v5litepod-16"),
    ],
)
def test_other_tpus_than_those_that_are_asked_for_are_refused(cloud, there, asked, words):
    for _ in range(2):
        assert cloud.run("create", *WHERE, *there, "--spot").returncode == 0
    other = cloud.run("create", *WHERE, *asked, "--spot")
    assert other.returncode == 2 and words in other.stderr
