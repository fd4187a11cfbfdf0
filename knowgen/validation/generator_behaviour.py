"""Checks of the behaviour of a generator: odd prompts, references, setup and close twice, a fresh process."""

from __future__ import annotations

import hashlib
from pathlib import Path

from knowgen.core.errors import KnowgenError, RefusalError
from knowgen.core.records import GenerationRequest, ImageRef, request_id
from knowgen.core.scratch import ScratchFolder
from knowgen.engine.retry import CallTimeoutError, ContractError, describe
from knowgen.validation.checked_generator import ROUNDING_LEVELS, CheckedGenerator
from knowgen.validation.findings import CheckStoppedError
from knowgen.validation.probe import ProbedImage, generate_in_fresh_process, mean_difference, probed_image

ODD_PROMPTS = {
    "an empty prompt": "",
    "a prompt of 20,000 characters": "A long row of houses, each with a door of another colour. " * 345,
    "a prompt in other scripts": "夕暮れの港、古い灯台。 Маяк на скалах. منارة على الساحل 🗼",
    "a prompt with control characters": 'A sign\u0000 that says "<b>{0}</b> %s\\n"\n\n\t--help',
}


def check_odd_prompts(checked: CheckedGenerator) -> None:
    """Give odd prompts: each must end as an image or a status, and must not affect other requests."""
    failing: str | None = None
    for name, prompt in ODD_PROMPTS.items():
        if _raises(checked, name, prompt):
            failing = prompt
    again = checked.generate("odd prompts", checked.requests[0])
    if again is not None and not checked.same(again):
        checked.notes.fail("odd prompts", "after them it gives other images", "keep no state between requests")
    capabilities = checked.handle.capabilities
    if failing is not None and capabilities.shape == "generate_batch" and capabilities.batch_size > 1:
        _check_batch(checked, failing)


def _raises(checked: CheckedGenerator, name: str, prompt: str) -> bool:
    """Give an odd prompt; return whether it raised an error that is not a refusal."""
    notes = checked.notes
    request = GenerationRequest(id=request_id(name, 0), prompt=prompt, seed=checked.requests[0].seed)
    result = checked.run("odd prompts", [request])
    try:
        image = probed_image(result.result_of(request.id))
    except KnowgenError as error:  # including RefusalError
        notes.ok("odd prompts", f"{name} is declined: {describe(error)}")
    except ContractError as error:
        notes.fail("odd prompts", f"{name}: {describe(error)}", "return an image, or raise an error")
    except SystemExit:
        notes.fail("odd prompts", f"{name} makes it call sys.exit", "raise an error instead")
    except Exception as error:  # noqa: BLE001 - a generator may raise anything
        what = f"{name} raises {describe(error)}; such a sample is stored as failed"
        notes.warn("odd prompts", what, "raise RefusalError with a reason if a prompt cannot be generated")
        return True
    else:
        if isinstance(image, ProbedImage):
            notes.ok("odd prompts", f"{name} gives an image")
        elif image.reason:
            notes.ok("odd prompts", f"{name} is {image.status}: {image.reason}")
        else:
            notes.warn("odd prompts", f"{name} is {image.status} without a reason", "give GeneratedImage a reason")
    return False


def _check_batch(checked: CheckedGenerator, failing: str) -> None:
    """Check whether a failing prompt makes its whole batch fail."""
    good, seed = checked.requests[-1], checked.requests[0].seed
    bad = GenerationRequest(id=request_id("bad", 0), prompt=failing, seed=seed)
    result = checked.run("odd prompts", [bad, good])
    if good.id not in [id for id, _, _ in result.results]:
        what = "one failing prompt makes its whole batch fail, which is then generated one by one"
        checked.notes.warn("odd prompts", what, "yield GeneratedImage(status=failed, reason=…) for it and go on")


def check_references(checked: CheckedGenerator) -> None:
    """Give a reference image, if the generator takes them."""
    if not checked.handle.capabilities.references:
        return
    with ScratchFolder("knowgen.check.") as folder:
        request = checked.requests[0].model_copy(update={"references": (_reference(folder),)})
        image = checked.generate("references", request)
    if image is None:
        return
    if checked.repeatable and mean_difference(checked.images[0], image) == 0:
        checked.notes.warn("references", "a reference image changes nothing", "use it, or remove `references`")
    else:
        checked.notes.ok("references", "a reference image is used")


def _reference(folder: Path) -> ImageRef:
    """Return a plain reference image: a yellow disc with a blue bar."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (256, 256), "white")
    canvas = ImageDraw.Draw(image)
    canvas.ellipse((40, 40, 216, 216), fill="gold", outline="black", width=4)
    canvas.rectangle((40, 118, 216, 138), fill="navy")
    path = folder / "reference.png"
    image.save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ImageRef(sha256=digest, width=256, height=256, format="PNG", path=path)


def check_setup_twice(checked: CheckedGenerator) -> None:
    """Call `setup` a second time."""
    setup = getattr(checked.plugin, "setup", None)
    if not callable(setup):
        return
    fix = "let it do nothing the second time"
    try:
        checked.call("setup", lambda: setup(checked.device), fix)
    except (Exception, SystemExit) as error:
        if isinstance(error, CheckStoppedError):
            raise
        checked.notes.fail("setup", f"a second call raises {describe(error)}", fix)
        return
    image = checked.generate("setup", checked.requests[0])
    if image is not None and not checked.same(image):
        checked.notes.fail("setup", "after a second call it gives other images", fix)
    elif image is not None:
        checked.notes.ok("setup", "can be called twice")


def check_close_twice(checked: CheckedGenerator) -> None:
    """Call `close` twice, and release the generator."""
    close = getattr(checked.plugin, "close", None)
    checked.plugin = None
    if not callable(close):
        return
    for number in ("first", "second"):
        try:
            checked.call("close", close, "let it end what it started, and return")
        except (Exception, SystemExit) as error:
            if isinstance(error, CheckStoppedError):
                raise
            what = f"the {number} call raises {describe(error)}"
            checked.notes.fail("close", what, "let it do nothing if nothing is open")
            return
    checked.notes.ok("close", "can be called twice")


def check_fresh_process(checked: CheckedGenerator) -> None:
    """Generate an image in a new process, as worker processes and a resumed run do."""
    notes, component_ref = checked.notes, checked.handle.component_ref
    if component_ref is None:
        what = "it exists in this process only, so worker processes cannot build it"
        notes.warn("fresh process", what, "name it as module:Class instead of passing an object")
        return
    with ScratchFolder("knowgen.check.") as folder:
        try:
            image = generate_in_fresh_process(
                component_ref, checked.requests[0], checked.device, folder, checked.timeout
            )
        except RefusalError as error:
            checked.decline("fresh process", describe(error))
            return
        except (ContractError, CallTimeoutError) as error:
            notes.fail("fresh process", describe(error), "make sure that its name and arguments suffice to build it")
            return
        except (TypeError, ValueError) as error:
            notes.fail("fresh process", f"its arguments are not plain data: {error}", "pass numbers, strings, lists")
            return
    apart = mean_difference(checked.images[0], image)
    if not checked.repeatable:
        notes.ok("fresh process", "another process generates images as well")
    elif apart > ROUNDING_LEVELS:
        what = f"another process gives another image (mean difference {apart:.1f} of 255 levels)"
        notes.fail("fresh process", what, "do not seed with hash(), a clock, or earlier results")
    else:
        notes.ok("fresh process", "another process gives the same image")
