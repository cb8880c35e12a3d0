"""docs/clusters.md says what the files do: commands, roles, ports, quotas."""

import json
import re
import shlex

import pytest
from click import ClickException, MissingParameter
from ray.scripts.scripts import cli

from study.config.options import parse
from tests.helpers.cluster_files import AWS, ONPREM, ROOT, VCPUS, pins, start_options

TEXT = (ROOT / "docs" / "clusters.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def statements():
    """All policy statements, by name."""
    found = [json.loads(block) for block in blocks("json")]
    parts = [one for block in found for one in (block if isinstance(block, list) else [block])]
    return {s["Sid"]: s for part in parts for s in part.get("Statement", [part])}


def code_of(text):
    """Lines of shell: blocks, words in backticks, and lines that are set in."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    found = blocks.replace("\\\n", "").splitlines()
    found += [word.replace("\n", " ") for word in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    return found + re.findall(r"^(?:#   |    )(ray .*)", text, re.MULTILINE)


def ray_commands(line):
    """Ray's commands in a line of shell, and in what one of them sends to the cluster."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found, command = [], []
    for word in [*lexer, ";"]:
        if " " in word:
            found += ray_commands(word)
        if set(word) <= set(";&|><"):
            while command and "=" in command[0]:
                command.pop(0)
            found += [command[1:]] if command[:1] == ["ray"] else []
            command = []
        else:
            command.append(word)
    return found


def understands(words):
    """Whether Ray has this command with these options; "" or what it says."""
    name, *arguments = words
    if name not in cli.commands:
        return f"no command {name}"
    if name == "job":
        return ""  # needs a connection
    try:
        cli.commands[name].make_context(name, arguments)
    except MissingParameter:
        return ""  # named in a sentence
    except ClickException as error:
        return error.format_message()
    return ""


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
def test_study_commands_are_understood_and_write_to_the_shared_folder(file):
    lines = [line for line in commands_of(file) if "run_tune.py" in line]
    assert lines
    for line in lines:
        words = shlex.split(shlex.split(line)[-1].split("run_tune.py", 1)[1])
        options = parse(words)
        assert options.address == "auto"
        assert any(options.out.is_relative_to(mount) for mount in file.mounts)


def test_one_machine_needs_no_cluster():
    section = TEXT.split("## One GPU machine")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if "run_tune.py --preset full" in line]
    assert len(lines) >= 2
    for line in lines[:2]:
        words = re.split(r"[>|]|2>|'", line.split("run_tune.py", 1)[1])[0].split()
        options = parse([word for word in words if word != "2"])
        data = str(options.data)
        assert (options.preset, options.address, data) == ("full", None, "~/recordings")


@pytest.mark.parametrize("name", ["docs/clusters.md", "README.md", "mlflow/README.md", AWS.name,
                                  ONPREM.name])  # fmt: skip
def test_ray_understands_every_command_that_is_written_down(name):
    lines = [line for line in code_of((ROOT / name).read_text()) if "ray " in line]
    found = [command for line in lines for command in ray_commands(line)]
    assert found
    # `ray teardown` is named because Ray does not have it.
    said = {" ".join(words): understands(words) for words in found if words != ["teardown"]}
    assert {command: why for command, why in said.items() if why} == {}


def test_ray_exec_stop_still_calls_a_command_that_ray_does_not_have():
    """Where this fails, Ray has mended it, and docs/clusters.md may say `--stop`."""
    assert "teardown" not in cli.commands
    assert "ray teardown" in TEXT


def test_the_line_that_ends_all_machines_ends_workers_before_the_head():
    (line,) = [line for block in blocks("sh") for line in block.splitlines() if "shutdown" in line]
    *study, stop, down, shutdown = [part.strip() for part in shlex.split(line)[-1].split(";")]
    assert "run_tune.py" in study[0]
    assert "/mnt/runs/birdsong/full.log" in study[0]  # the terminal is gone with the head
    assert [stop, shutdown] == ["ray stop", "sudo shutdown -h now"]
    assert {"-y", "--workers-only", "~/ray_bootstrap_config.yaml"} <= set(down.split())
    head = AWS.load()["available_node_types"]["head"]["node_config"]
    assert head["InstanceInitiatedShutdownBehavior"] == "terminate"


def test_quotas_hold_all_machines_that_may_be_started():
    rows = re.findall(r"^\| [^|]+ \| L-\w+ \| (\d+) \| `(\w+)` \|$", TEXT, re.MULTILINE)
    types = AWS.load()["available_node_types"]
    wanted = {
        name: VCPUS[t["node_config"]["InstanceType"]] * max(1, t["max_workers"])
        for name, t in types.items()
    }
    assert {name: int(cores) for cores, name in rows} == wanted


def test_your_own_computer_gets_the_ray_of_the_cluster():
    stated = set(re.findall(r"ray(?:\[default\]==|\w* )(\d+\.\d+\.\d+)", TEXT, re.IGNORECASE))
    assert stated == {pins()["ray"]}


def test_the_role_of_the_head_is_one_that_machines_take_on_through_a_profile():
    trust = statements()["MachinesMayTakeItOn"]
    assert trust["Principal"] == {"Service": "ec2.amazonaws.com"}
    steps = [line.split()[2] for line in TEXT.splitlines() if line.startswith("aws iam create-role")
             or line.startswith("aws iam") and "birdsong-head" in line]  # fmt: skip
    assert steps == [
        "create-role", "put-role-policy", "create-instance-profile", "add-role-to-instance-profile",
    ]  # fmt: skip


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
    actions = [s["Action"] for s in named.values()]
    flat = [a for one in actions for a in (one if isinstance(one, list) else [one])]
    assert sorted(flat) == [
        "ec2:CreateTags", "ec2:CreateTags", "ec2:Describe*", "ec2:RunInstances",
        "ec2:RunInstances", "ec2:TerminateInstances", "iam:PassRole", "kms:CreateGrant",
        "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncrypt*",
        "s3:GetObject", "s3:ListBucket", "sts:AssumeRole",
    ]  # fmt: skip
    grant = named["LendTheKeyToTheMachine"]
    assert grant["Condition"] == {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    assert all(s["Effect"] == "Allow" for s in named.values())
    assert [sid for sid, s in named.items() if s.get("Resource") == "*"] == ["See"]
    passed = named["HandOnTheReadersRole"]
    assert "*" not in passed["Resource"]
    assert passed["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


def test_roles_are_for_the_region_of_the_file():
    region = AWS.load()["provider"]["region"]
    arns = re.findall(r"arn:aws:(?:ec2|kms):([\w-]*):", TEXT)
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
