from pathlib import Path

import pytest

from studio.settings import Settings, is_loopback, prepare_environment


def refused(capsys, argv, env=None):
    with pytest.raises(SystemExit) as ended:
        Settings.read(argv, env or {})
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_nothing_given_means_this_machine_only():
    settings = Settings.read([], {})
    assert (settings.host, settings.port, settings.profile, settings.share) == ("127.0.0.1", None, "local", False)
    assert settings.outputs.name == "outputs"
    assert settings.models_dir is None


def test_every_argument_is_read(tmp_path):
    more = ["--dtype", "bfloat16", "--offload", "always", "--compile"]
    argv = f"--host ::1 --port 80 --outputs {tmp_path} --models {tmp_path} --device cpu --threads 3 --memory-gb 1.5"
    settings = Settings.read([*argv.split(), *more, "--offline", "--open"], {})
    assert settings == Settings(
        outputs=tmp_path,
        models_dir=tmp_path,
        device="cpu",
        threads=3,
        memory_gb=1.5,
        dtype="bfloat16",
        offload="always",
        compiled=True,
        host="::1",
        port=80,
        offline=True,
        open_browser=True,
    )


def test_share_without_auth_ends_with_code_2_and_a_sentence(capsys):
    assert "--share makes a public link, so it needs --auth" in refused(capsys, ["--share"])


def test_share_with_a_short_password_is_refused_without_repeating_it(capsys):
    message = refused(capsys, ["--share", "--auth", "ann:sesame"])
    assert "at least 8 characters" in message
    assert "sesame" not in message


def test_share_with_auth_is_the_shared_profile():
    settings = Settings.read(["--share", "--auth", "ann:open:sesame"], {})
    assert (settings.profile, settings.auth) == ("shared", (("ann", "open:sesame"),))


def test_auth_comes_from_the_environment_unless_given():
    env = {"DUCKRABBIT_AUTH": "ann:one-secret bob:two-secrets"}
    assert Settings.read([], env).auth == (("ann", "one-secret"), ("bob", "two-secrets"))
    assert Settings.read(["--auth", "eve:other"], env).auth == (("eve", "other"),)


@pytest.mark.parametrize("auth", ["ann", "ann:", ":secret"])
def test_auth_without_both_halves_is_refused(capsys, auth):
    message = refused(capsys, ["--auth", auth])
    assert "USER:PASSWORD" in message
    assert "secret" not in message


def test_the_same_user_twice_is_refused(capsys):
    assert "same user twice" in refused(capsys, ["--auth", "a:1", "--auth", "a:2"])


def test_a_password_is_not_in_the_settings_text():
    assert "sesame" not in repr(Settings.read(["--auth", "ann:sesame"], {}))


def test_a_space_listens_to_everyone_and_is_shared():
    settings = Settings.read([], {"SPACE_ID": "someone/duckrabbit"})
    assert (settings.host, settings.profile) == ("0.0.0.0", "shared")


def test_a_host_that_others_can_reach_is_shared():
    assert Settings.read(["--host", "0.0.0.0"], {}).profile == "shared"
    assert Settings.read(["--host", "localhost"], {}).profile == "local"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--port", "http"], "from 1 to 65535"),
        (["--port", "70000"], "from 1 to 65535"),
        (["--threads", "0"], "above 0"),
        (["--memory-gb", "nan"], "above 0"),
        (["--memory-gb", "lots"], "above 0"),
        (["--dtype", "int8"], "choose from"),
        (["--offload", "sometimes"], "choose from"),
        (["--models", "/no/such/folder"], "there is no folder"),
        (["--models", "~nosuchuser"], "nobody here has the home of '~nosuchuser'; write the path out"),
        (["--models", "x" * 300], "there is no folder"),
        (["--outputs", "~nosuchuser/out"], "nobody here has the home of '~nosuchuser/out'; write the path out"),
        (["--outputs", "x" * 300], "no folder can be called so (File name too long); name another"),
    ],
)
def test_values_that_cannot_be_used_are_named_with_the_fix(capsys, argv, says):
    message = refused(capsys, argv)
    assert says in message
    assert argv[0] in message


def test_outputs_that_is_a_file_is_refused(capsys):
    assert "is a file" in refused(capsys, ["--outputs", __file__])


def test_loopback_is_recognised():
    assert [is_loopback(host) for host in ("127.0.0.9", "::1", "localhost")] == [True] * 3
    assert [is_loopback(host) for host in ("0.0.0.0", "192.168.1.2", "example.org", "")] == [False] * 4


def test_the_environment_is_prepared_but_what_a_person_set_stays():
    env = {"GRADIO_ANALYTICS_ENABLED": "True"}
    prepare_environment(Settings(), env)
    assert env["GRADIO_ANALYTICS_ENABLED"] == "True"
    assert env["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert "HF_HUB_OFFLINE" not in env


def test_offline_and_threads_reach_the_libraries_through_the_environment():
    env = {"OMP_NUM_THREADS": "8"}
    prepare_environment(Settings(offline=True, threads=2), env)
    assert (env["HF_HUB_OFFLINE"], env["OMP_NUM_THREADS"]) == ("1", "2")


def test_defaults_lie_inside_the_project():
    settings = Settings()
    assert (settings.assets / "training").is_dir()
    assert settings.presets.parent == Path(__file__).resolve().parents[1]
