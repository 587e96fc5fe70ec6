"""Jobs of the viewer without the web: the queue, its limits, what survives a kill, what a failure says."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import aftermap as am
from aftermap.errors import InputRefusedError, UnknownNameError, UsageError
from aftermap.job import Image, Job, JobRefusedError, Limits, label, stored
from aftermap.jobrun import WORK, Runner
from aftermap.jobs import Jobs
from aftermap.tiffhead import Most, claims
from tests.conftest import flood_pair, grid, write
from tests.hostile_uploads import NAMES, tiff

BARE = "from pathlib import Path; from aftermap import card, jobwork; card.BUNDLED = Path('none'); "
"""As in every test, the methods without training alone."""
MAPS = (sys.executable, "-c", BARE + "jobwork.main()")
SLEEPS = (sys.executable, "-c", "import time; time.sleep(60)")
LOOSE = Limits(free_mb=1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    before, after, _ = flood_pair((300, 420))
    home = tmp_path_factory.mktemp("images")
    return {
        name: write(home / f"S1_{name}_20240513.tif", pixels, grid(pixels.shape[1:]), ("VV", "VH"), unit="dB")
        for name, pixels in (("after", after), ("before", before))
    }


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Runner]]:
    """Runners of one folder, one after the other; the last is stopped at the end."""
    made: list[Runner] = []

    def new(limits: Limits = LOOSE, work: tuple[str, ...] = MAPS, *, start: bool = True) -> Runner:
        if made:
            made.pop().stop()
        made.append(Runner(Jobs(tmp_path / "jobs", limits), work=work))
        if start:
            made[0].start()
        return made[0]

    yield new
    for runner in made:
        runner.stop()


def bring(jobs: Jobs, job: Job, path: Path, role: str = "after", name: str = "") -> Image:
    coming = jobs.expect(job.id, role, name or path.name, path.stat().st_size)
    try:
        coming.take(path.stat().st_size)
        shutil.copy(path, coming.path)
        return jobs.keep(coming)
    finally:
        jobs.drop(coming)


def ready(runner: Runner, images: dict[str, Path]) -> Job:
    job = runner.jobs.start()
    for role, path in images.items():
        bring(runner.jobs, job, path, role)
    return runner.jobs.change(runner.jobs.get(job.id), state="checked")


def until(runner: Runner, job: Job, *states: str, seconds: float = 40) -> Job:
    end = time.monotonic() + seconds
    while (now := runner.jobs.get(job.id)).state not in states:
        assert time.monotonic() < end, now
        time.sleep(0.05)
    return now


def products(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "log.json"}


def test_a_job_that_was_killed_goes_on_and_gives_the_bytes_of_a_run_by_hand(
    make: Callable[..., Runner], images: dict[str, Path], tmp_path: Path
) -> None:
    runner = make(work=SLEEPS)
    job = ready(runner, images)
    runner.jobs.enqueue(job.id)
    until(runner, job, "running")
    said = json.loads((tmp_path / "jobs" / job.id / "job.json").read_text())
    assert said["state"] == "running"
    runner = make(start=False)
    assert runner.jobs.get(job.id).state == "queued"
    runner.start()
    done = until(runner, job, "done", "failed")
    assert (done.state, done.answer, done.error) == ("done", "found", {})
    home = runner.jobs.home(done)
    by_hand = am.map(
        home / "in/after-1" / images["after"].name, home / "in/before-1" / images["before"].name, out=tmp_path / "hand"
    )
    assert products(home / "out") == products(by_hand.folder)
    again = make()
    assert again.jobs.get(job.id) == done


def test_the_doctor_says_what_it_understood_and_what_is_wrong(make: Callable[..., Runner], images: dict[str, Path]) -> None:
    runner = make()
    job = ready(runner, images)
    checked = runner.check(job.id, "flood", "Passau", {"after_date": "2024-05-13", "before_date": "2024-05-20"})
    assert {f["code"] for f in checked.findings} >= {"dates-reversed"}
    assert not checked.refused
    assert checked.understood[0].startswith("after: sentinel-1, VV VH, dB, 2024-05-13, 420 x 300 px, EPSG:32633")
    refused = runner.check(job.id, "flood", "", {"unit": "power"})
    assert [f["code"] for f in refused.findings if f["severity"] == "refuse"] == ["unit-impossible"]
    with pytest.raises(JobRefusedError, match="refused"):
        runner.jobs.enqueue(job.id)
    useless = runner.check(job.id, "landslide", "", {"sensor": "no-such"})
    assert useless.refused
    with pytest.raises(UnknownNameError):
        runner.check(job.id, "tsunami", "", {})


def test_a_failure_is_told_with_its_code_and_repair(make: Callable[..., Runner], images: dict[str, Path]) -> None:
    runner = make()
    job = ready(runner, images)
    path = runner.jobs.home(job) / job.files[0].place
    path.write_bytes(path.read_bytes()[:5000])
    runner.jobs.enqueue(job.id)
    failed = until(runner, job, "failed", "done")
    assert failed.error["code"] == "truncated"
    assert failed.error["repair"]
    shutil.copy(images["after"], path)
    runner.jobs.enqueue(job.id)
    assert until(runner, job, "done", "failed").state == "done"


@pytest.mark.parametrize(
    ("act", "code"),
    [("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "job-crashed"), ("import time; time.sleep(60)", "job-slow"),
     ("print('[1')", "job-crashed"), (BARE + "jobwork.mapped = lambda *_: [0][2 ** 70]; jobwork.main()", "job-crashed"),
     (BARE + "jobwork.mapped = lambda *_: bytearray(1 << 42); jobwork.main()", "job-memory")],
    ids=["killed", "slow", "nonsense", "fault", "memory"],
)  # fmt: skip
def test_whatever_a_process_does_the_queue_goes_on(
    make: Callable[..., Runner], images: dict[str, Path], act: str, code: str
) -> None:
    limits = replace(LOOSE, run_minutes=1)
    runner = make(limits, (sys.executable, "-c", act))
    if code == "job-slow":
        object.__setattr__(limits, "run_minutes", 0.02)
    job = ready(runner, images)
    runner.jobs.enqueue(job.id)
    failed = until(runner, job, "failed")
    assert failed.error["code"] == code
    assert failed.error["what"]
    assert failed.error["repair"]


def test_jobs_wait_their_turn_and_can_be_cancelled(make: Callable[..., Runner], images: dict[str, Path]) -> None:
    runner = make(replace(LOOSE, queued=2), SLEEPS)
    jobs = runner.jobs
    first, second, third, fourth = (ready(runner, {"after": images["after"]}) for _ in range(4))
    jobs.enqueue(first.id)
    until(runner, first, "running")
    jobs.enqueue(second.id)
    jobs.enqueue(third.id)
    assert [jobs.position(jobs.get(j.id)) for j in (first, second, third)] == [0, 1, 2]
    with pytest.raises(JobRefusedError) as full:
        jobs.enqueue(fourth.id)
    assert (full.value.code, full.value.status) == ("jobs-full", 429)
    for wrong in (lambda: jobs.delete(second.id), lambda: jobs.delete(first.id), lambda: jobs.enqueue(first.id),
                  lambda: jobs.remove(second.id, "after", 1), lambda: jobs.cancel(fourth.id),
                  lambda: jobs.expect(first.id, "after", "x", 1)):  # fmt: skip
        with pytest.raises(JobRefusedError) as state:
            wrong()
        assert (state.value.code, state.value.status) == ("job-state", 409)
    assert jobs.cancel(second.id).state == "cancelled"
    assert jobs.position(jobs.get(third.id)) == 1
    jobs.cancel(first.id)
    until(runner, third, "running")
    jobs.cancel(third.id)
    jobs.delete(third.id)
    assert not (jobs.folder / third.id).exists()
    assert third.id not in {j.id for j in jobs.listed()}


def test_the_process_of_a_job_ends_with_the_viewer(images: dict[str, Path], tmp_path: Path) -> None:
    """Killed without a word, the viewer leaves nobody working in its folder."""
    import os
    import signal
    import subprocess

    code = (
        "import sys, time; from pathlib import Path; from tests.test_jobs import *; "
        f"r = Runner(Jobs(Path({str(tmp_path)!r}), LOOSE), work=(sys.executable, '-c', "
        '"import os, time; from pathlib import Path; from aftermap import jobwork; jobwork.mapped = lambda home, *_: '
        "(Path(home, 'pid').write_text(str(os.getpid())), time.sleep(60)); jobwork.main()\")); "
        f"r.start(); j = ready(r, {{'after': Path({str(images['after'])!r})}}); r.jobs.enqueue(j.id); time.sleep(60)"
    )
    viewer = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    try:
        end = time.monotonic() + 30
        while not (found := [p for p in tmp_path.glob("*/pid") if p.read_text()]):
            assert time.monotonic() < end
            time.sleep(0.05)
        worker = int(found[0].read_text())
    finally:
        viewer.send_signal(signal.SIGKILL)
        viewer.wait(10)
    while time.monotonic() < end + 20:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the process of the job still runs")


def test_what_may_be_brought_is_counted(make: Callable[..., Runner], images: dict[str, Path], tmp_path: Path) -> None:
    small = replace(LOOSE, file_mb=1, job_mb=1, folder_mb=2, files=2, kept=3)
    jobs = make(small, SLEEPS).jobs
    job = jobs.start()
    mb = 1 << 20
    for length in (mb + 1, 10**12):
        with pytest.raises(JobRefusedError, match="1 MB, the most for a file") as large:
            jobs.expect(job.id, "after", "x.tif", length)
        assert (large.value.code, large.value.status) == ("too-large", 413)
    unsaid = jobs.expect(job.id, "after", "x.tif", None)
    unsaid.take(mb)
    with pytest.raises(JobRefusedError, match="larger"):
        unsaid.take(1)
    with pytest.raises(JobRefusedError, match="what is left of 1 MB for a job"):
        jobs.expect(job.id, "before", "y.tif", None)
    jobs.drop(unsaid)
    bring(jobs, job, images["after"])
    with pytest.raises(JobRefusedError, match="for a job"):
        bring(jobs, job, images["before"], "before")
    other = jobs.start()
    bring(jobs, other, images["after"])
    third = jobs.start()
    with pytest.raises(JobRefusedError, match="for all jobs"):
        bring(jobs, third, images["after"])
    with pytest.raises(JobRefusedError) as full:
        jobs.start()
    assert full.value.code == "jobs-full"
    jobs.delete(other.id)
    tiny = tmp_path / "tiny.tif"
    tiny.write_bytes(tiff())
    assert bring(jobs, third, tiny).number == 1
    assert bring(jobs, third, tiny, "dem").role == "dem"
    with pytest.raises(JobRefusedError, match="takes 2 files"):
        bring(jobs, third, tiny)
    with pytest.raises(JobRefusedError, match="no role"):
        jobs.expect(job.id, "truth", "x.tif", 1)
    assert jobs.remove(third.id, "after", 1).files[0].role == "dem"


def test_a_full_disk_is_said_before(
    make: Callable[..., Runner], images: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make(replace(LOOSE, free_mb=1000), SLEEPS)
    job = ready(runner, images)
    monkeypatch.setattr("aftermap.jobs.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 10**8))
    for act in (runner.jobs.start, lambda: runner.jobs.enqueue(job.id), lambda: runner.jobs.expect(job.id, "after", "x", 10)):
        with pytest.raises(JobRefusedError, match="95 MB left") as low:
            act()
        assert (low.value.code, low.value.status) == ("disk-low", 507)


def test_what_was_left_by_halves_is_put_right(make: Callable[..., Runner], images: dict[str, Path], tmp_path: Path) -> None:
    jobs = make(work=SLEEPS, start=False).jobs
    job = jobs.start()
    bring(jobs, job, images["after"])
    left = jobs.home(job) / "in" / "0123.partial"
    left.write_bytes(b"half")
    strange = {"0" * 16: "{", "1" * 16: "[]", "2" * 16: '{"id": "x"}', "no-id": json.dumps({"id": "no-id"})}
    for name, text in strange.items():
        (jobs.folder / name).mkdir()
        (jobs.folder / name / "job.json").write_text(text)
    jobs = make(work=SLEEPS, start=False).jobs
    assert [j.id for j in jobs.listed()] == [job.id]
    assert not left.exists()
    assert all((jobs.folder / name / "job.json").exists() for name in strange)
    old = jobs.change(jobs.get(job.id))
    jobs._jobs[job.id] = replace(old, changed=old.changed - 90_000)
    assert [j.id for j in jobs.listed()] != [jobs.start().id]
    assert job.id not in {j.id for j in jobs.listed()}


def test_a_folder_has_one_viewer(tmp_path: Path) -> None:
    first = Jobs(tmp_path / "jobs")
    with pytest.raises(UsageError) as busy:
        Jobs(tmp_path / "jobs")
    assert busy.value.code == "busy"
    first.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as unwritable:
        Jobs(tmp_path / "file")
    assert unwritable.value.code == "unwritable"


def test_limits_are_named_and_whole() -> None:
    assert Limits.of({"file-mb": "5", "run-minutes": "7"}) == Limits(file_mb=5, run_minutes=7)
    with pytest.raises(UnknownNameError, match="file-mb"):
        Limits.of({"file_mb": "5"})
    for wrong in ("", "-1", "1.5", "0", "many", "٣x"):
        with pytest.raises(UsageError, match="whole number"):
            Limits.of({"files": wrong})


def test_names_keep_what_tells_sensor_band_and_date() -> None:
    for name in ("S2A_MSIL2A_20240513T101559_N0510_R065_T33UUP.tif", "HLS.L30.T10SEG.2020001.B04.tif", "VV-db_2024-05-13.tif"):
        assert stored(name) == name
    assert {name: stored(name) for name in NAMES} == NAMES
    assert label("a/b\\c\u202e\x00d" + "e" * 500) == "c  d".replace("  ", " ") + "e" * 117


def test_a_header_is_read_in_either_order_and_refused_without_gdal(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    for order in "<>":
        path.write_bytes(tiff(order=order))
        assert (claims(path, Most()).width, claims(path, Most()).bits) == (64, 8)
    with pytest.raises(InputRefusedError) as wide:
        claims(path, Most(pixels=4095))
    assert wide.value.code == "too-many-pixels"
    assert WORK[-1] == "aftermap.jobwork"
