"""docs/clusters.md says what the files do: commands, roles, ports."""

import json
import re
import shlex

import pytest

from study.config.options import parse
from tests.helpers.cluster_files import AWS, ONPREM, ROOT, start_options

TEXT = (ROOT / "docs" / "clusters.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def statements():
    """All policy statements, by name."""
    found = [json.loads(block) for block in blocks("json")]
    return {s["Sid"]: s for part in found for s in part.get("Statement", [part])}


def commands_of(file):
    """Lines of the first block that names the file."""
    block = next(b for b in blocks("sh") if f"ray up -y {file.name}" in b)
    return [line for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("file", [AWS, ONPREM], ids=lambda file: file.name)
def test_six_commands_at_most(file):
    lines = commands_of(file)
    assert 3 <= len(lines) <= 6
    assert "down" in lines[-1]


@pytest.mark.parametrize("file", [AWS, ONPREM], ids=lambda file: file.name)
def test_study_command_is_understood_and_writes_to_the_shared_folder(file):
    (line,) = [line for line in commands_of(file) if "run_tune.py" in line]
    words = shlex.split(shlex.split(line)[-1].split("run_tune.py", 1)[1])
    options = parse(words)
    assert options.address == "auto"
    assert any(options.out.is_relative_to(mount) for mount in file.mounts)


def test_head_may_start_and_end_only_what_is_tagged_as_its_own():
    cluster = AWS.load()
    own = cluster["cluster_name"]
    named = statements()
    for sid in ("EndWorkersOfThisCluster", "KeepNotesOnWorkersOfThisCluster"):
        equals = named[sid]["Condition"]["StringEquals"]
        assert equals["aws:ResourceTag/ray-cluster-name"] == own
    start = named["StartWorkersOfThisCluster"]["Condition"]["StringEquals"]
    assert start["aws:RequestTag/ray-cluster-name"] == own
    workers = {name: t for name, t in cluster["available_node_types"].items() if name != "head"}
    assert set(start["ec2:InstanceType"]) == {
        t["node_config"]["InstanceType"] for t in workers.values()
    }


def test_roles_give_no_more_than_is_said():
    named = statements()
    actions = {sid: s["Action"] for sid, s in named.items()}
    assert sorted(actions.values()) == [
        "ec2:CreateTags", "ec2:CreateTags", "ec2:Describe*", "ec2:RunInstances",
        "ec2:RunInstances", "ec2:TerminateInstances", "iam:PassRole", "s3:GetObject",
        "s3:ListBucket",
    ]  # fmt: skip
    assert all(s["Effect"] == "Allow" for s in named.values())
    assert [sid for sid, s in named.items() if s["Resource"] == "*"] == ["See"]
    passed = named["HandOnTheReadersRole"]
    assert "*" not in passed["Resource"]
    assert passed["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


def test_roles_are_for_the_region_of_the_file():
    region = AWS.load()["provider"]["region"]
    arns = re.findall(r"arn:aws:ec2:([\w-]*):", TEXT)
    assert set(arns) == {region}
    assert statements()["See"]["Condition"]["StringEquals"]["aws:RequestedRegion"] == region


@pytest.mark.parametrize("file", [AWS, ONPREM], ids=lambda file: file.name)
def test_every_port_of_the_files_is_in_the_table(file):
    table = TEXT.split("## Ports and the token")[1].split("\n## ")[0]
    listed = set(
        re.findall(r"\d{2,5}", " ".join(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)))
    )
    for which in ("head", "worker"):
        options = start_options(file.load(), which)
        for name, value in options.items():
            # Only the head has these.
            if (
                "port" in name
                and isinstance(value, int)
                and (
                    which == "head"
                    or name not in {"port", "dashboard_port", "ray_client_server_port"}
                )
            ):
                assert str(value) in listed, name


def test_files_that_are_named_are_there():
    for path in re.findall(r"\]\(\.\./([\w.-]+)\)", TEXT):
        assert (ROOT / path).exists(), path
