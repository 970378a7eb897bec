"""The command line: reads arguments and settings, opens a studio, and gives each command its part of them."""

import argparse
import asyncio
import io
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

try:
    from bot.commands import loras, pictures, training
    from bot.commands.pictures import Wish
    from bot.commands.terminal import DONE, INTERRUPTED, MISTAKE, OURS, Terminal
    from bot.commands.training import Lesson
    from bot.message import printable
    from bot.pace import WISHES
    from bot.settings import Settings
    from bot.sizes import ASPECTS, RATIO
    from bot.wiring import Studio, open_studio
    from engine.bases.memory import Wanted
    from engine.errors import AtelierError, Cancelled, Fault, Invalid
    from engine.exchange import Wish as ImportWish
    from engine.lora.write import DIALECTS
    from engine.plans import CONTROLS, DEFAULT_RANK, DEFAULT_TRAIN_STEPS, KINDS, PRIORS, SAMPLERS, TRAINED_KINDS
    from engine.recipes import VERSION
except KeyboardInterrupt:  # these take a moment, in which nothing has been begun
    sys.exit(130)

SIZE = f"or a shape ({', '.join(ASPECTS)}), or a ratio such as 16:9 (default: what the base is best at)"
PRIOR = f"{', '.join(PRIORS)}: what keeps the class as it was (default: base)"
Command = Callable[[Studio, argparse.Namespace, Terminal], Awaitable[int | None]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 the person's mistake, 3 try later, 1 ours, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    terminal = Terminal("--json" in (words[: words.index("--")] if "--" in words else words))
    logging.basicConfig(level=logging.WARNING, handlers=[_log_handler()])
    try:
        args = _parser().parse_args(words)
        if args.command == "init":  # has no settings yet, and waits for a person where a loop could not be interrupted
            return _init(args, terminal)
        return asyncio.run(_run(args, terminal)) or DONE
    except KeyboardInterrupt:
        return terminal.fail(Cancelled())
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our words has gone: nobody is left to be told
        return INTERRUPTED
    except AtelierError as error:
        return terminal.fail(error)
    except Exception as error:
        logging.getLogger("atelier").exception("a fault of ours")
        return terminal.fail(Fault(type(error).__name__, str(error)))


class LogLines(logging.Formatter):
    """What is logged may name what others made: it is shown as everything else is."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _log_handler() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(LogLines("%(levelname)s %(name)s: %(message)s"))
    return handler


async def _run(args: argparse.Namespace, terminal: Terminal) -> int | None:
    command: Command = args.run
    studio = open_studio(_settings(args))
    try:
        return await command(studio, args, terminal)
    finally:
        await studio.executor.close()


def _settings(args: argparse.Namespace) -> Settings:
    said = {"memory": args.memory} if "memory" in args else {}
    if args.command == "demo":  # has a home of its own, new each time, so that it can be repeated
        from bot import demo

        home = demo.prepare(args.out)
        if args.base:
            return Settings(demo.borrow(args.base, Settings(getattr(args, "home", None)).home, home), base=args.base,
                            **said)  # fmt: skip
        return Settings(home=getattr(args, "home", home), **said)
    home: Path | None = getattr(args, "home", None)
    try:
        return Settings(home, **said)
    except Invalid as error:
        if args.command != "doctor":
            raise
        args.trouble = error  # which it tells, with the rest
        return Settings.bare(home)


def _init(args: argparse.Namespace, terminal: Terminal) -> int:
    from bot.commands import init

    init.init(getattr(args, "home", None), terminal)
    return DONE


async def _draw(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> None:
    if args.again:
        if others := sorted(_said(args) - {"again", "out"}):
            why = f"the picture's recipe says everything, so leave out {', '.join(others)}"
            raise Invalid("--again", why, "`atelier draw PROMPT` draws something else.")
        await pictures.again(studio, args.again, args.out, terminal)
        return
    if args.prompt is None:
        raise Invalid("prompt", "it is empty", "Say in a few words what to draw.")
    if args.strength is not None and args.image is None:
        raise Invalid("--strength", "there is no picture that it belongs to", "Name one with --image FILE.")
    await pictures.draw(studio, _wish(args), terminal)


async def _edit(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> None:
    await pictures.draw(studio, _wish(args), terminal)


async def _grid(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> None:
    await pictures.grid(studio, _wish(args), args.seeds, terminal)


async def _why(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> None:
    from bot.commands import why

    await why.why(studio, args.picture, args.out, terminal)


async def _train(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> None:
    await training.train(studio, Lesson(**{name: getattr(args, name) for name in Lesson.__slots__}), terminal)


async def _loras(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> None:
    match args.what or "list":
        case "list" | "show" as what:
            _shelf(studio, what, getattr(args, "name", None), terminal)
        case "inspect":
            await loras.inspect(studio, args.file, terminal)
        case "import":
            given = {name: getattr(args, name) for name in ImportWish.__slots__}
            await loras.take_in(studio, args.file, ImportWish(**given), terminal)
        case "export":
            given = {name: getattr(args, name) for name in loras.Shipment.__slots__}
            loras.send_out(studio, loras.Shipment(**given), terminal)
        case "merge":
            loras.merge(studio, args.loras, args.name, args.replace, terminal)
        case "port":
            wish = training.Port(**{name: getattr(args, name) for name in training.Port.__slots__})
            await training.port(studio, wish, terminal)
        case other:
            raise ValueError(other)


def _shelf(studio: Studio, what: str, name: str | None, terminal: Terminal) -> None:
    if what == "show":
        if name is None:
            raise Invalid("loras show", "which one is not said", "`atelier loras` lists what there is.")
        loras.show_lora(studio, name, terminal)
    elif name is not None:
        raise Invalid("loras list", f"it takes no name (“{name}”)", f"`atelier loras show {name}` shows one.")
    else:
        loras.list_loras(studio, terminal)


async def _upscale(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> None:
    from bot.commands import upscaling

    given = {name: getattr(args, name) for name in upscaling.Enlarging.__slots__}
    await upscaling.upscale(studio, upscaling.Enlarging(**given), terminal)


async def _upscalers(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> None:
    from bot.commands import upscaling

    match args.what, args.file:
        case "add", None:
            raise Invalid("upscalers add", "which file is not said", "Name an ESRGAN-type .safetensors file.")
        case "add", file:
            upscaling.add(studio, file, args.as_name, terminal)
        case _, None if args.as_name is None:
            upscaling.list_upscalers(studio, terminal)
        case _:
            raise Invalid("upscalers list", "it takes no file and no name", "`atelier upscalers` lists them all.")


async def _bases(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> int | None:
    from bot.commands import bases

    said = bases.Request(**{name: getattr(args, name) for name in bases.Request.__slots__})
    return bases.bases_command(studio, said, terminal)


async def _controls(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> None:
    from bot.commands import controls

    said = controls.Request(**{name: getattr(args, name) for name in controls.Request.__slots__})
    controls.controls_command(studio, said, terminal)


async def _references(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> None:
    from bot.commands import references

    said = references.Request(**{name: getattr(args, name) for name in references.Request.__slots__})
    references.references_command(studio, said, terminal)


async def _chat(studio: Studio, _: argparse.Namespace, terminal: Terminal) -> None:
    from bot.commands import conversation

    await conversation.chat(studio, terminal)


async def _serve(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> None:
    from bot.commands import service

    await service.serve(studio, args.host, args.port, terminal)


async def _demo(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> None:
    from bot import demo

    made = await demo.play(studio, args.seed, demo.Stage(args.out, terminal.say, terminal.progress))
    where = f"{len(made['pictures'])} pictures and transcript.md are in {args.out}/; all at once: {made['sheet']}"
    terminal.result(made, ["", where])


async def _doctor(studio: Studio, args: argparse.Namespace, terminal: Terminal) -> int:
    from bot import doctor

    trouble: Invalid | None = getattr(args, "trouble", None)
    findings = await doctor.examine(studio, trouble)
    terminal.result(doctor.as_data(findings), doctor.as_lines(findings))
    return MISTAKE if trouble else DONE if doctor.can_draw(findings) else OURS


class Parser(argparse.ArgumentParser):
    """argparse, with its complaints as our errors and no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        what, _, why = message.rpartition(": ") if message.startswith("argument ") else ("", "", message)
        named = what.removeprefix("argument ") or "command line"
        raise Invalid(named, why, f"`{self.prog} --help` shows what it takes.")


def _parser() -> Parser:
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--home", type=path, metavar="DIR", help="where everything is kept (default: ~/.atelier)")
    how = f"where a base's weights are: {', '.join(get_args(Wanted))} (default: auto)"
    common.add_argument("--memory", choices=get_args(Wanted), metavar="MODE", help=how)
    common.add_argument("--json", action="store_true", help="one JSON object on stdout; progress on stderr")
    about = "Pictures from plain words and weighted LoRAs; LoRAs from a dozen pictures."
    parser = Parser(prog="atelier", description=about, parents=[common])
    parser.add_argument("--version", action="version", version=f"atelier {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Command, text: str) -> Parser:
        made = commands.add_parser(name, help=text, description=text, parents=[common])
        made.set_defaults(run=run)
        return made

    _add_draw(command("draw", _draw, "Draw pictures of a prompt, with the LoRAs that you name and nothing else."))
    _add_edit(command("edit", _edit, "Draw over a picture, or over the white part of a mask."))
    _add_grid(command("grid", _grid, "Compare weights of one LoRA: a labelled sheet, weights across, seeds down."))
    _add_why(command("why", _why, "Show what each LoRA does to a picture: a sheet of it without each of them."))
    _add_upscale(command("upscale", _upscale, "Enlarge a picture that is there, and draw detail into it."))
    _add_upscalers(command("upscalers", _upscalers, "List the upscalers of your own; add one from a file."))
    _add_train(command("train", _train, "Train a LoRA from a folder of 4 to 30 pictures."))
    _add_loras(command("loras", _loras, "List the LoRAs, show one, take files in and write them out."), common)
    _add_bases(command("bases", _bases, "List the base models; add one, download one, choose one, check one."))
    _add_controls(command("controls", _controls, "List the ControlNets, or add one: edges, poses, depths, sketches."))
    _add_references(command("references", _references, "List the IP-Adapters, or add one, to look at pictures."))
    command("chat", _chat, "Talk to it; on a pipe, one message a line, @path attaches a file.")
    _add_run(command("run", _serve, "Keep the service open: a page to chat on, Slack, webhooks."))
    _add_demo(command("demo", _demo, "One conversation on its own: pictures, a LoRA trained and used."))
    about = "Set it up: the home, the doors that it answers at, a language model; asks, and writes settings.toml."
    commands.add_parser("init", help=about, description=about, parents=[common])
    command("doctor", _doctor, "What works on this machine, and what to do about the rest.")
    return parser


def _add_run(parser: Parser) -> None:
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="where to listen (default: 127.0.0.1)")
    parser.add_argument("--port", type=whole, default=8765, metavar="N", help="0 takes a free one (default: 8765)")


def _add_demo(parser: Parser) -> None:
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="another seed, other pictures")
    parser.add_argument("--base", metavar="NAME", help="on one of your own base models (default: pocket)")
    parser.add_argument("--out", type=path, default=Path("demo"), metavar="DIR", help="where they land (default: demo)")


def _add_draw(parser: Parser) -> None:
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to draw; <lora:NAME:WEIGHT> works in it")
    parser.add_argument("--again", type=path, metavar="PICTURE", help="draw a picture anew from the recipe in its file")
    parser.add_argument("--image", type=path, metavar="FILE", help="draw over this picture")
    _add_strength(parser)
    parser.add_argument("--size", type=size, metavar="WxH", help=SIZE)
    _add_file(parser)
    _add_followed(parser)
    _add_sampling(parser)


def _add_edit(parser: Parser) -> None:
    parser.add_argument("image", type=path, metavar="PICTURE", help="the picture to change")
    parser.add_argument("prompt", metavar="PROMPT", help="what it should show")
    parser.add_argument("--mask", type=path, metavar="FILE", help="of the same size: white is redrawn, black stays")
    _add_strength(parser)
    _add_file(parser)
    _add_followed(parser)
    _add_sampling(parser)


def _add_grid(parser: Parser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="what to draw")
    parser.add_argument("--seeds", type=whole, default=2, metavar="N", help="rows (default: 2)")
    parser.add_argument("--size", type=size, metavar="WxH", help=SIZE)
    _add_basics(parser)
    parser.add_argument("--out", type=path, metavar="FILE", help="the sheet (default: under the home)")


def _add_why(parser: Parser) -> None:
    parser.add_argument("picture", type=path, metavar="PICTURE", help="a picture that Atelier drew with LoRAs")
    parser.add_argument("--out", type=path, metavar="FILE", help="the sheet (default: under the home)")


def _add_upscale(parser: Parser) -> None:
    parser.add_argument(
        "picture", type=path, metavar="PICTURE", help="a PNG, JPEG or WebP; one of ours brings its recipe"
    )
    parser.add_argument("--scale", type=scale, metavar="2|4", help="how many times as large (default: what there is)")
    _add_enlarging(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="what it shows, for --detail (default: as its recipe says)")
    parser.add_argument("--base", metavar="NAME", help="what draws the detail (default: as its recipe says)")
    parser.add_argument("--seed", type=whole, metavar="N", help="default: as its recipe says, else drawn")
    parser.add_argument("--out", type=path, metavar="DIR", help="where it lands (default: under the home)")


def _add_upscalers(parser: Parser) -> None:
    actions = ("list", "add")
    parser.add_argument("what", nargs="?", default="list", type=one_of(actions), metavar="|".join(actions))
    parser.add_argument("file", nargs="?", type=path, metavar="FILE", help="add: an ESRGAN-type .safetensors file")
    parser.add_argument("--name", dest="as_name", metavar="NAME", help="what it is called (default: as its file)")


def _add_enlarging(parser: Parser) -> None:
    own = "one of `atelier upscalers`, or lanczos (default: the net that comes with Atelier)"
    parser.add_argument("--upscaler", default="", metavar="NAME", help=own)
    parser.add_argument("--detail", type=number, default=0.0, metavar="S", help="draw over it in tiles: 0.05 to 0.3")


def _add_file(parser: Parser) -> None:
    parser.add_argument(
        "--upscale", type=upscale, metavar="1|2|4", help="times as large; 1: as drawn (default: the base's)"
    )
    _add_enlarging(parser)
    parser.add_argument("--transparent", action="store_true", help="cut out what it shows: a PNG without background")


def _add_strength(parser: Parser) -> None:
    parser.add_argument("--strength", type=number, metavar="S", help="how far from it: 0.01 to 1 (default: 0.6)")


def _add_followed(parser: Parser) -> None:
    kinds, shown = ", ".join(CONTROLS), "KIND:FILE:WEIGHT"
    parser.add_argument("--control", action="append", metavar=shown, help=f"a picture to follow: {kinds}; up to 3")
    parser.add_argument("--control-map", action="append", metavar=shown, help="the same, of a file that is the map")
    parser.add_argument("--control-until", type=number, metavar="U", help="in which part of the steps: 0.01 to 1")
    parser.add_argument("--reference", action="append", metavar="FILE:WEIGHT", help="a picture of how it is to look")


def _add_sampling(parser: Parser) -> None:
    _add_basics(parser)
    parser.add_argument("-n", type=whole, default=1, metavar="N", help="how many, 1 to 4 (default: 1)")
    parser.add_argument("--out", type=path, metavar="DIR", help="where the pictures land (default: under the home)")


def _add_basics(parser: Parser) -> None:
    parser.add_argument("--lora", action="append", metavar="NAME:WEIGHT", help="a LoRA at -2 to 2; up to 8 times")
    parser.add_argument("--no-trigger", dest="trigger", action="store_false", help="do not put triggers in")
    parser.add_argument("--base", metavar="NAME", help="the base model (default: the one in use)")
    parser.add_argument("--negative", default="", metavar="TEXT", help="what it should not show")
    parser.add_argument("--seed", type=whole, metavar="N", help="default: drawn")
    parser.add_argument("--steps", type=whole, metavar="N", help="1 to 60")
    parser.add_argument("--guidance", type=number, metavar="G", help="0 to 30: how closely to follow the prompt")
    parser.add_argument("--sampler", metavar="NAME", help=", ".join(SAMPLERS))
    parser.add_argument(
        "--speed", type=one_of(WISHES), metavar="|".join(WISHES),
        help="fast: the base's few-step LoRA, or fewer steps; best: more steps",
    )  # fmt: skip


def _add_train(parser: Parser) -> None:
    parser.add_argument("folder", type=path, metavar="FOLDER", help="pictures; NAME.txt beside one is its caption")
    parser.add_argument("--name", required=True, help="what the LoRA is called")
    parser.add_argument(
        "--kind", required=True, type=one_of(TRAINED_KINDS), metavar="KIND", help=", ".join(TRAINED_KINDS)
    )
    parser.add_argument("--trigger", required=True, metavar="T", help="the made-up word that calls it")
    parser.add_argument("--class", dest="word", default="", metavar="WORD", help="the ordinary word: crab")
    parser.add_argument("--caption", metavar="TEXT", help="where no NAME.txt is; [trigger] works in it")
    parser.add_argument("--prior", default="base", type=one_of(PRIORS), metavar="PRIOR", help=PRIOR)
    parser.add_argument("--rank", type=whole, default=DEFAULT_RANK, metavar="R", help="4 to 64")
    parser.add_argument("--steps", type=whole, default=DEFAULT_TRAIN_STEPS, metavar="N", help="1 to 4000")
    parser.add_argument("--seed", type=whole, metavar="N", help="default: drawn")
    parser.add_argument("--base", metavar="NAME", help="the base model (default: the one in use)")
    parser.add_argument("--replace", action="store_true", help="put it in the place of the one of that name")


def _add_loras(parser: Parser, common: Parser) -> None:
    parts = parser.add_subparsers(dest="what", metavar="list|show|inspect|import|export|merge|port")

    def part(name: str, text: str) -> Parser:
        return parts.add_parser(name, help=text, description=text, parents=[common])

    part("list", "List the LoRAs.").add_argument("name", nargs="?", help=argparse.SUPPRESS)
    part("show", "Show one.").add_argument("name", nargs="?", metavar="NAME")
    source = "a .safetensors file, or an https:// address of one"
    part("inspect", "Say what a LoRA file is, and take nothing in.").add_argument("file", metavar="FILE", help=source)
    _add_import(part("import", "Take a LoRA file in, byte for byte."), source)
    _add_export(part("export", "Write a LoRA as a file that other programs read."))
    merge = part("merge", "Save a stack as one LoRA; it draws the same.")
    merge.add_argument("loras", nargs="+", metavar="NAME:WEIGHT")
    merge.add_argument("--name", required=True, help="what the new one is called")
    merge.add_argument("--replace", action="store_true", help="put it in the place of the one of that name")
    port = part("port", "Retrain one for another base, from its own pictures and with its own recipe.")
    port.add_argument("name", metavar="NAME")
    port.add_argument("--base", required=True, metavar="NAME", help="the base to train it for")
    port.add_argument("--steps", type=whole, metavar="N", help="1 to 4000 (default: as many as it had)")
    port.add_argument("--replace", action="store_true", help="put it in the place of the one that is there for it")


def _add_import(parser: Parser, source: str) -> None:
    parser.add_argument("file", metavar="FILE", help=f"{source}; FILE.json and a picture beside it are read too")
    parser.add_argument("--name", help="what it is called here (default: what the file says)")
    parser.add_argument("--kind", type=one_of(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--trigger", metavar="T", help="the word that calls it (default: what the file says)")
    parser.add_argument("--licence", metavar="L", help="for example Apache-2.0 (default: what the file says)")
    parser.add_argument("--base", metavar="NAME", help="the base that it is for (default: one that it fits)")
    parser.add_argument("--partial", action="store_true", help="where only a part of it fits, take that part in")
    how = "of a speed LoRA: what it was distilled for (default: what its name tells)"
    parser.add_argument("--steps", type=whole, metavar="N", help=f"1 to 60, {how}")
    parser.add_argument("--guidance", type=number, metavar="G", help="the same")
    parser.add_argument("--sampler", metavar="NAME", help="the same; one of " + ", ".join(SAMPLERS))
    parser.add_argument("--replace", action="store_true", help="put it in the place of the one of that name")


def _add_export(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--format", dest="dialect", default="kohya", type=one_of(DIALECTS), metavar="FORMAT",
                        help="kohya (default; every program reads it) or diffusers")  # fmt: skip
    parser.add_argument(
        "--out", type=path, required=True, metavar="FILE", help="a .safetensors file; FILE.json beside it"
    )
    parser.add_argument("--scrub", action="store_true", help="leave out captions, folder names and tag frequencies")
    parser.add_argument("--replace", action="store_true", help="write over files that are there")


def _add_bases(parser: Parser) -> None:
    actions = ("list", "add", "get", "use", "check")
    parser.add_argument("what", nargs="?", default="list", type=one_of(actions), metavar="|".join(actions))
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a base; to add: a folder, .safetensors file or OWNER/NAME"
    )
    parser.add_argument("--name", dest="as_name", default="", metavar="N", help="what the new base is called")
    parser.add_argument(
        "--licence", default="", metavar="TEXT", help="its licence, where you know better than the file"
    )
    parser.add_argument("--commercial", action=argparse.BooleanOptionalAction, help="whether its pictures may be sold")
    parser.add_argument(
        "--tokenizer", type=path, metavar="FOLDER", help="CLIP's vocab.json and merges.txt, if not here"
    )
    kinds = ("epsilon", "v_prediction")
    parser.add_argument("--prediction", type=one_of(kinds), metavar="|".join(kinds), help="where a file does not say")
    parser.add_argument("--accept-licence", action="store_true", help="get: you have read its licence, and take it")
    parser.add_argument("--lora", type=path, metavar="FILE", help="check: one of your LoRAs as well")
    parser.add_argument("--out", type=path, metavar="DIR", help="check: where the pictures land (default: nowhere)")


def _add_controls(parser: Parser) -> None:
    parser.add_argument("what", nargs="?", default="list", type=one_of(("list", "add")), metavar="list|add")
    what = "to add: a folder in diffusers' layout, or a .safetensors file"
    parser.add_argument("path", nargs="?", type=path, metavar="FOLDER", help=what)
    parser.add_argument("--kind", type=one_of(CONTROLS), metavar="KIND", help=f"what it reads: {', '.join(CONTROLS)}")
    _add_terms(parser)


def _add_references(parser: Parser) -> None:
    parser.add_argument("what", nargs="?", default="list", type=one_of(("list", "add")), metavar="list|add")
    parser.add_argument("path", nargs="?", type=path, metavar="FILE", help="to add: an IP-Adapter's .safetensors")
    parser.add_argument("--encoder", type=path, metavar="FOLDER", help="its CLIP vision encoder: config.json, weights")
    _add_terms(parser)


def _add_terms(parser: Parser) -> None:
    parser.add_argument("--name", dest="as_name", default="", metavar="N", help="what it is called")
    parser.add_argument("--licence", default="", metavar="TEXT", help="its licence, where the file does not say it")
    parser.add_argument("--commercial", action=argparse.BooleanOptionalAction, help="whether its pictures may be sold")


def _wish(args: argparse.Namespace) -> Wish:
    given: dict[str, Any] = {name: getattr(args, name) for name in Wish.__slots__ if hasattr(args, name)}
    given |= {name: tuple(given.get(name) or ()) for name in ("lora", "control", "control_map", "reference")}
    return Wish(**given)


def _said(args: argparse.Namespace) -> set[str]:
    """The options of draw that were given, by name."""
    silent = {"prompt": None, "lora": None, "negative": "", "n": 1, "trigger": True, "transparent": False}
    silent |= {"upscaler": "", "detail": 0.0}
    given = {name: value for name, value in vars(args).items() if name in {*Wish.__slots__, "again"}}
    return {name for name, value in given.items() if value != silent.get(name)}


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        said = text if len(text) <= 80 else f"{text[:60]}…"
        raise argparse.ArgumentTypeError(f"“{said}” is not a whole number") from None


def path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return Path(text)


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"“{text}” is not a number") from None


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    def named(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"“{text}” is none of {', '.join(names)}")
        return text

    return named


def size(text: str) -> tuple[int, int] | str:
    """`256x192`, `256` for a square, a shape (`story`), or a ratio (`9:16`)."""
    said = text.strip().lower()
    if said in ASPECTS or RATIO.fullmatch(said):
        return said
    found = re.fullmatch(r"(\d{1,9})(?:[x×](\d{1,9}))?", said)
    if not found:
        raise argparse.ArgumentTypeError(f"“{text}” is not a size such as 256x192, story or 16:9")
    return int(found[1]), int(found[2] or found[1])


def upscale(text: str) -> int:
    if text.strip() not in ("1", "2", "4"):
        raise argparse.ArgumentTypeError(f"“{text}” is not 1, 2 or 4")
    return int(text)


def scale(text: str) -> int:
    if text.strip() not in ("2", "4"):
        raise argparse.ArgumentTypeError(f"“{text}” is not 2 or 4")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
