"""`alert-twin packets` on files of every kind."""

import gzip
import io
import json

import lsst.alert.packet
import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.alerts import read_packet
from pipeline.alerts.read import to_container
from pipeline.config import AlertConfig
from pipeline.errors import InputError
from schemas.alert_versions import packaged
from tests.pipeline.alerts.makers import sample
from twin.cli import main
from twin.packet_files import line, look, packets_of
from twin.packets import distinct


@pytest.fixture(scope="module")
def segment():
    return next(iter(distinct(3, 2, 2, 4)))


@pytest.fixture
def files(tmp_path, segment):
    """A packet as on the wire, a run's file, Rubin's own container, and one of an archive."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.bin").write_bytes(segment.packets[0])
    (folder / "b.avro").write_bytes(to_container(segment.packets))
    stored = io.BytesIO()
    lsst.alert.packet.Schema.from_file().store_alerts(stored, [read_packet(packet) for packet in segment.packets[:2]])
    (folder / "c.avro").write_bytes(stored.getvalue())
    (folder / "d.avro.gz").write_bytes(gzip.compress(segment.packets[2]))
    return folder


def test_files_of_every_kind_give_their_packets(files, segment):
    a, b, c = segment.packets
    assert packets_of(files / "a.bin") == [a]
    assert packets_of(files / "b.avro") == [a, b, c]
    assert packets_of(files / "c.avro") == [a, b]
    assert packets_of(files / "d.avro.gz") == [c]
    assert [found.packet for found in look([files])] == [a, a, b, c, a, b, c]


def test_containers_of_older_versions_are_read_under_their_own(tmp_path):
    old = next(iter(distinct(1, 2, 2, 4, config=AlertConfig(schema="8.0")))).packets
    (tmp_path / "old.avro").write_bytes(to_container(old))
    (found,) = look([tmp_path])
    assert found.packet == old[0]
    assert found.problems == ()


def test_samples_of_every_packaged_version_are_shown(tmp_path):
    """The samples of lsst-alert-packet; those before 7.4 are held against their schema alone."""
    for major, minor in packaged():
        (tmp_path / f"{major}_{minor}.bin").write_bytes(sample(major, minor)[0])
    shown = {found.path.stem: (line(found), found.problems) for found in look([tmp_path])}
    assert len(shown) == len(packaged()) == 15
    for name, (text, problems) in shown.items():
        major, minor = map(int, name.split("_"))
        assert f" {major}.{minor} " in text
        assert "281323062375219200" in text
        assert bool(problems) == ((major, minor) >= (7, 4))        # the samples' ids are made up


def test_the_command_shows_each_packet_and_writes_its_cutouts(files, segment, tmp_path, capsys):
    out = tmp_path / "cutouts"
    assert main(["packets", str(files / "b.avro"), "--cutouts", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[:3] == ["diaSourceId", "version", "kB"]
    assert [line.split()[0] for line in said[1:4]] == [str(identifier) for identifier in segment.ids]
    assert all("11.1" in line and "30x30" in line for line in said[1:4])
    assert said[-1] == f"3 packets, 3 sound, 0 not; 9 cutouts in {out}"
    assert len(list(out.iterdir())) == 12
    alert = read_packet(segment.packets[1])
    for kind in ("Science", "Template", "Difference"):
        assert (out / f"{segment.ids[1]}_{kind}.fits").read_bytes() == alert[f"cutout{kind}"]
    picture = imread(out / f"{segment.ids[1]}.png")
    assert picture.shape[0] > 300
    assert picture.shape[1] > 900
    assert np.ptp(picture[..., 0]) > 0.9                # black to white: something is drawn


def test_ids_pick_packets(files, segment, capsys):
    assert main(["packets", str(files / "b.avro"), "--id", str(segment.ids[2])]) == 0
    assert "1 packets, 1 sound" in capsys.readouterr().out
    assert main(["packets", str(files / "b.avro"), "--id", "7"]) == 2
    assert capsys.readouterr().err == "alert-twin: no packet with the id 7 in 1 files\n"


def test_whole_alerts_are_json(files, segment, capsys):
    assert main(["packets", str(files / "a.bin"), "--full"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["diaSource"]["diaSourceId"] == segment.ids[0]
    assert found["cutoutScience"] == "34560 bytes"
    assert len(found["prvDiaSources"]) == 2


def test_fields_are_counted(files, capsys):
    assert main(["packets", str(files / "b.avro"), "--fields"]) == 0
    said = capsys.readouterr().out
    assert "diaSource: 3 records of 102 fields" in said
    assert "prvDiaSources: 6 records" in said
    never = next(line for line in said.splitlines() if line.startswith("  never: psfLnL"))
    assert "psfFlux," not in never


def test_an_unsound_packet_is_named_and_the_exit_code_is_1(files, segment, tmp_path, capsys):
    packet = segment.packets[0]
    (tmp_path / "cut.bin").write_bytes(packet[:500])
    (tmp_path / "moved.bin").write_bytes(packet.replace(b"CUTMINX =", b"CUTMINZ =", 1))
    assert main(["packets", str(tmp_path / "cut.bin"), str(tmp_path / "moved.bin"), "--cutouts",
                 str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert "  ! packet unreadable at byte 500: it ends within a value" in said
    assert "  ! cutoutDifference: CUTMINX, CRPIX1, CRVAL1 must be numbers" in said
    assert "2 packets, 0 sound, 2 not" in said


@pytest.mark.parametrize(("name", "content", "message"), [
    ("empty.bin", b"", "the file is empty"),
    ("half.avro", b"Obj\x01" + bytes(20), "not a readable Avro file"),
    ("bad.avro.gz", b"\x1f\x8b" + bytes(20), "not a readable gzip file"),
])
def test_a_file_without_packets_is_one_line_of_complaint(tmp_path, capsys, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert main(["packets", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"alert-twin: {tmp_path / name}: ")
    assert message in said
    assert said.count("\n") == 1


def test_containers_of_something_else_and_empty_folders_are_refused(tmp_path):
    import fastavro

    with (tmp_path / "other.avro").open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "cat", "fields": [{"name": "n", "type": "long"}]}, [{"n": 1}])
    with pytest.raises(InputError, match=r"has the schema lsst\.vMAJOR_MINOR\.alert, got cat"):
        list(look([tmp_path / "other.avro"]))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no packets in it"):
        list(look([tmp_path / "none"]))
    with pytest.raises(InputError, match="no such file or folder"):
        list(look([tmp_path / "absent"]))
