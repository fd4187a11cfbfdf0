"""Checks of how a generator behaves: odd prompts, references, setting up and closing twice, a fresh process."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from knowgen.core.errors import KnowgenError, RefusalError
from knowgen.core.records import GenerationRequest, ImageRef, request_id
from knowgen.engine.retry import CallTimeoutError, ContractError, describe
from knowgen.validation.probe import ProbedImage, difference, draw_afresh, picture_of
from knowgen.validation.session import SLIGHT, CheckedGenerator, CheckStoppedError

ODD_PROMPTS = {
    "an empty prompt": "",
    "a prompt of 20,000 characters": "A long row of houses, each with a door of another colour. " * 345,
    "a prompt in other scripts": "夕暮れの港、古い灯台。 Маяк на скалах. منارة على الساحل 🗼",
    "a prompt with control characters": 'A sign\u0000 that says "<b>{0}</b> %s\\n"\n\n\t--help',
}


def check_odd_prompts(subject: CheckedGenerator) -> None:
    """Draws odd prompts: each must end as a picture or as a state, and harm nobody else."""
    failing: str | None = None
    for name, prompt in ODD_PROMPTS.items():
        if _raises(subject, name, prompt):
            failing = prompt
    again = subject.draw("odd prompts", subject.requests[0])
    if again is not None and not subject.same(again):
        subject.notes.fail("odd prompts", "after them it draws other pictures", "keep no state between requests")
    traits = subject.handle.traits
    if failing is not None and traits.shape == "generate_batch" and traits.batch_size > 1:
        _look_at_batch(subject, failing)


def _raises(subject: CheckedGenerator, name: str, prompt: str) -> bool:
    """Draws an odd prompt; tells whether that raised an error of no clear kind."""
    notes = subject.notes
    request = GenerationRequest(id=request_id(name, 0), prompt=prompt, seed=subject.requests[0].seed)
    trial = subject.give("odd prompts", [request])
    try:
        found = picture_of(trial.answer(request.id))
    except KnowgenError as error:  # RefusalError among them
        notes.ok("odd prompts", f"{name} is declined: {describe(error)}")
    except ContractError as error:
        notes.fail("odd prompts", f"{name}: {describe(error)}", "give a picture, or raise an error")
    except SystemExit:
        notes.fail("odd prompts", f"{name} makes it call sys.exit", "raise an error instead")
    except Exception as error:  # noqa: BLE001 - a generator may raise anything
        what = f"{name} raises {describe(error)}; such a sample is kept as failed"
        notes.warn("odd prompts", what, "raise RefusalError with a reason, if a prompt cannot be drawn")
        return True
    else:
        if isinstance(found, ProbedImage):
            notes.ok("odd prompts", f"{name} is drawn")
        elif found.reason:
            notes.ok("odd prompts", f"{name} is {found.status}: {found.reason}")
        else:
            notes.warn("odd prompts", f"{name} is {found.status} without a reason", "give Drawing a reason")
    return False


def _look_at_batch(subject: CheckedGenerator, failing: str) -> None:
    """Looks whether a prompt that fails takes a good one of its batch down."""
    good, seed = subject.requests[-1], subject.requests[0].seed
    bad = GenerationRequest(id=request_id("bad", 0), prompt=failing, seed=seed)
    trial = subject.give("odd prompts", [bad, good])
    if good.id not in [name for name, _, _ in trial.answers]:
        what = "one failing prompt takes its whole batch down, which must then be drawn one by one"
        subject.notes.warn("odd prompts", what, "yield Drawing(status=failed, reason=…) for it and go on")


def check_references(subject: CheckedGenerator) -> None:
    """Gives a reference image, if they are taken."""
    if not subject.handle.traits.references:
        return
    with tempfile.TemporaryDirectory() as folder:
        request = subject.requests[0].model_copy(update={"references": (_reference(Path(folder)),)})
        picture = subject.draw("references", request)
    if picture is None:
        return
    if subject.steady and difference(subject.alone[0], picture) == 0:
        subject.notes.warn("references", "a reference image changes nothing", "use it, or drop `references`")
    else:
        subject.notes.ok("references", "a reference image is taken")


def _reference(folder: Path) -> ImageRef:
    """Draws a plain reference image: a yellow disc with a blue bar."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (256, 256), "white")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((40, 40, 216, 216), fill="gold", outline="black", width=4)
    pen.rectangle((40, 118, 216, 138), fill="navy")
    path = folder / "reference.png"
    picture.save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ImageRef(sha256=digest, width=256, height=256, format="PNG", path=path)


def check_setup_twice(subject: CheckedGenerator) -> None:
    """Calls `setup` a second time."""
    setup = getattr(subject.plugin, "setup", None)
    if not callable(setup):
        return
    fix = "let it do nothing the second time"
    try:
        subject.call("setup", lambda: setup(subject.device), fix)
    except (Exception, SystemExit) as error:
        if isinstance(error, CheckStoppedError):
            raise
        subject.notes.fail("setup", f"a second call raises {describe(error)}", fix)
        return
    picture = subject.draw("setup", subject.requests[0])
    if picture is not None and not subject.same(picture):
        subject.notes.fail("setup", "after a second call it draws other pictures", fix)
    elif picture is not None:
        subject.notes.ok("setup", "can be called twice")


def check_close_twice(subject: CheckedGenerator) -> None:
    """Calls `close` twice, and lets the generator go."""
    close = getattr(subject.plugin, "close", None)
    subject.plugin = None
    if not callable(close):
        return
    for number in ("first", "second"):
        try:
            subject.call("close", close, "let it end what it started, and return")
        except (Exception, SystemExit) as error:
            if isinstance(error, CheckStoppedError):
                raise
            what = f"the {number} call raises {describe(error)}"
            subject.notes.fail("close", what, "let it do nothing when nothing is open")
            return
    subject.notes.ok("close", "can be called twice")


def check_fresh_process(subject: CheckedGenerator) -> None:
    """Draws in a new process, as worker processes do, and as a run that is resumed."""
    notes, remake = subject.notes, subject.handle.remake
    if remake is None:
        what = "it lives in this process only, so worker processes cannot build it"
        notes.warn("fresh process", what, "name it as module:Class instead of passing an object")
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            picture = draw_afresh(remake, subject.requests[0], subject.device, Path(folder), subject.timeout)
        except RefusalError as error:
            subject.decline("fresh process", describe(error))
            return
        except (ContractError, CallTimeoutError) as error:
            notes.fail("fresh process", describe(error), "let its name and arguments be enough to build it")
            return
        except (TypeError, ValueError) as error:
            notes.fail("fresh process", f"its arguments are no plain data: {error}", "pass numbers, words, lists")
            return
    apart = difference(subject.alone[0], picture)
    if not subject.steady:
        notes.ok("fresh process", "another process draws, too")
    elif apart > SLIGHT:
        what = f"another process draws another picture (mean difference {apart:.1f} of 255 levels)"
        notes.fail("fresh process", what, "do not seed with hash(), a clock, or what was drawn before")
    else:
        notes.ok("fresh process", "another process draws the same picture")
