import io

from PIL import Image

from bot.sheets import CELL, PAPER, album, on_paper, sheet


def picture(colour: str, width: int = 64, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def test_a_sheet_has_room_for_its_rows_and_columns() -> None:
    drawn = opened(sheet([[picture("red")] * 3] * 2, ["0.4", "0.6", "0.8"], ["seed 1", "seed 2"], "a mug"))
    assert drawn.width >= 3 * CELL
    assert drawn.height >= 2 * CELL
    assert drawn.getpixel((drawn.width - CELL // 2, drawn.height - CELL // 2)) == (255, 0, 0)


def test_labels_and_captions_are_drawn() -> None:
    def ink(image: Image.Image) -> int:
        colours = image.getcolors(image.width * image.height) or []
        return sum(count for count, colour in colours if colour not in (PAPER, (255, 0, 0)))

    assert ink(opened(album([("a red mug on a podium", picture("red"))]))) > ink(opened(album([("", picture("red"))])))


def test_pictures_keep_their_proportions() -> None:
    drawn = opened(album([("wide", picture("red", 200, 100))], across=1))
    colours = [drawn.getpixel((drawn.width // 2, y)) for y in range(drawn.height)]
    assert colours.count((255, 0, 0)) == 100


def test_an_album_breaks_into_rows() -> None:
    one, two = (opened(album([("x", picture("red"))] * count, across=2)) for count in (2, 3))
    assert one.width == two.width
    assert two.height > one.height + CELL


def test_what_is_transparent_shows_the_paper() -> None:
    glass = Image.new("RGBA", (100, 100), (255, 0, 0, 0))
    buffer = io.BytesIO()
    glass.save(buffer, "PNG")
    sheet = opened(album([("cut out", buffer.getvalue())], across=1))
    assert (255, 0, 0) not in {colour for _, colour in sheet.getcolors(sheet.width * sheet.height) or []}
    assert on_paper(glass, "white").getpixel((5, 5)) == (255, 255, 255)
