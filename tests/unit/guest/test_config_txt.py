"""config.txt: what a Zero, Zero W and Zero 2 W obey, whatever sections the file has."""

from __future__ import annotations

import pytest

from otgd.guest.config_txt import effective, with_gadget

BOTH = "dtoverlay=dwc2\ngpu_mem=16\n"


@pytest.mark.parametrize(
    ("before", "added"),
    [
        pytest.param("", BOTH, id="empty"),
        pytest.param("a=1\n", BOTH, id="at the end"),
        pytest.param("a=1", "\n" + BOTH, id="after a last line without end"),
        pytest.param("a=1\r\n", "dtoverlay=dwc2\r\ngpu_mem=16\r\n", id="Windows line ends"),
        pytest.param("[pi4]\na=1\n", "[all]\n" + BOTH, id="out of another model's section"),
        pytest.param("[cm5]\ndtoverlay=dwc2,dr_mode=host\n[all]\n", BOTH, id="only cm5 has it"),
        pytest.param("[pi4]\na=1\n[all]\n", BOTH, id="sections closed"),
        pytest.param("[none]\n" + BOTH, "[all]\n" + BOTH, id="switched off by [none]"),
        pytest.param("#dtoverlay=dwc2\n", BOTH, id="commented out"),
        pytest.param("dtoverlay=dwc2,dr_mode=host\ngpu_mem=16\n", "dtoverlay=dwc2\n", id="host"),
        pytest.param("[pi02]\n" + BOTH, "[all]\n" + BOTH, id="only the Zero 2 W has it"),
        pytest.param("[gpio4=1]\n" + BOTH, "[all]\n" + BOTH, id="only by a jumper"),
        pytest.param("dtoverlay=dwc2\ngpu_mem=64\n", "gpu_mem=16\n", id="other share"),
        pytest.param(
            "dtoverlay=dwc2\ngpu_mem=16\ngpu_mem_512=128\n",
            "gpu_mem_512=16\n",
            id="share for 512 MB boards overrides",
        ),
        pytest.param(
            "dtoverlay=dwc2\n[pi0]\ndtoverlay=dwc2,dr_mode=host\n[all]\ngpu_mem=16\n",
            "dtoverlay=dwc2\n",
            id="a later line wins",
        ),
    ],
)
def test_missing_lines_are_appended_under_all(before: str, added: str) -> None:
    assert with_gadget(before) == before + added


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BOTH, id="guide"),
        pytest.param("[pi4]\nx=1\n[all]\n" + BOTH, id="under all"),
        pytest.param("[pi0]\n" + BOTH, id="under pi0, which every Zero obeys"),
        pytest.param("dtoverlay=dwc2,dr_mode=peripheral\ngpu_mem=16\n", id="rpi-usb-gadget's"),
        pytest.param(BOTH + "[cm4]\ndtoverlay=dwc2,dr_mode=host\n", id="other models differ"),
    ],
)
def test_file_that_holds_it_all_is_left_alone(text: str) -> None:
    assert with_gadget(text) == text


@pytest.mark.parametrize("camera", ["start_x=1\n", "start_file=start_x.elf\n"])
def test_camera_keeps_its_memory(camera: str) -> None:
    assert with_gadget(camera) == camera + "dtoverlay=dwc2\n"
    assert with_gadget(camera, gpu_mem=True) == camera + BOTH


def test_gpu_memory_is_left_alone_on_request() -> None:
    assert with_gadget("", gpu_mem=False) == "dtoverlay=dwc2\n"


def test_filters_of_different_kinds_add_up_until_all() -> None:
    text = "[gpio4=1]\n[pi0]\na=1\n[all]\na=2\n[pi4]\na=3\n"

    setting = effective(text, "a")

    assert setting is not None
    assert (setting.value, setting.certain) == ("2", True)
    assert effective("[gpio4=1]\n[pi0]\na=1\n", "a") != effective("[pi0]\na=1\n", "a")
