import numpy as np
import pytest

from zeroflaw_engines.errors import FrameError
from zeroflaw_engines.image_files.frame import MAX_FRAME_PIXELS, rgb_frame


def colour(height=12, width=17, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def assert_frame(got, want):
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, want)


# --- layouts ----------------------------------------------------------------------------------


def test_contiguous_rgb_is_not_copied():
    image = colour()
    assert rgb_frame(image) is image or np.shares_memory(rgb_frame(image), image)
    assert np.shares_memory(rgb_frame(image, white_level=255), image)
    image.flags.writeable = False
    assert np.shares_memory(rgb_frame(image), image)
    assert_frame(rgb_frame(image), image)


def test_bgr():
    image = colour()
    before = image.copy()
    assert_frame(rgb_frame(image, channel_order="bgr"), image[:, :, [2, 1, 0]])
    np.testing.assert_array_equal(image, before)


def test_alpha_is_dropped():
    image = colour(channels=4)
    assert_frame(rgb_frame(image), image[:, :, :3])
    assert_frame(rgb_frame(image, channel_order="bgr"), image[:, :, [2, 1, 0]])


@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
@pytest.mark.parametrize("shape", [(12, 17), (12, 17, 1), (1, 1), (5, 3), (3, 4), (4, 3, 1)])
def test_mono(shape, channel_order):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    want = np.stack([image.reshape(shape[:2])] * 3, axis=-1)
    assert_frame(rgb_frame(image, channel_order=channel_order), want)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (300, 1, 3), (3, 500, 4), (2, 2, 1)])
def test_narrow_frames(shape):
    image = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    want = np.broadcast_to(image[:, :, :3], (*shape[:2], 3))
    assert_frame(rgb_frame(image), want)


# --- strides ----------------------------------------------------------------------------------

VIEWS = {
    "rows padded": lambda a: a[:, :-5],
    "every other row": lambda a: a[::2],
    "every other column": lambda a: a[:, ::2],
    "upside down": lambda a: a[::-1],
    "mirrored": lambda a: a[:, ::-1],
    "turned": np.rot90,
    "transposed": lambda a: a.swapaxes(0, 1),
    "window": lambda a: a[3:9, 4:13],
    "Fortran": np.asfortranarray,
    "one pixel repeated": lambda a: np.broadcast_to(a[3, 4], (6, 7, *a.shape[2:])),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
@pytest.mark.parametrize("channels", [0, 1, 3, 4])
@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_views(view, channels, channel_order, dtype):
    eight_bit = colour(channels=max(1, channels))
    image = {
        np.uint8: lambda: eight_bit,
        np.uint16: lambda: eight_bit.astype(np.uint16) * 257,
        np.float32: lambda: (eight_bit / 255).astype(np.float32),
    }[dtype]()
    if channels == 0:
        image, eight_bit = image[:, :, 0], eight_bit[:, :, 0]
    seen = view(eight_bit)
    if channels == 0:
        want = np.stack([seen] * 3, axis=-1)
    elif channels == 1:
        want = np.concatenate([seen] * 3, axis=-1)
    else:
        want = seen[:, :, [2, 1, 0] if channel_order == "bgr" else [0, 1, 2]]
    assert_frame(rgb_frame(view(image), channel_order=channel_order), want)


def test_channels_reversed_by_a_view():
    image = colour()
    assert_frame(rgb_frame(image[:, :, ::-1]), image[:, :, [2, 1, 0]])
    assert_frame(rgb_frame(image[:, :, ::-1], channel_order="bgr"), image)


def test_planar_memory():
    planes = np.ascontiguousarray(colour().transpose(2, 0, 1))
    assert_frame(rgb_frame(planes.transpose(1, 2, 0)), colour())


def test_one_channel_of_a_colour_frame():
    image = colour()
    assert_frame(rgb_frame(image[:, :, 1]), np.stack([image[:, :, 1]] * 3, axis=-1))


# --- depths -----------------------------------------------------------------------------------


def assert_nearest(got, values, white):
    """Got is 255 * value / white to the nearest whole number (halves either way), or saturated."""
    assert got.dtype == np.uint8
    exact = np.minimum(510 * values.astype(np.int64), 510 * white)
    assert (abs(exact - 2 * white * got.astype(np.int64)) <= white).all()


@pytest.mark.parametrize("white", [None, 65535, 4095, 1023, 16383, 255, 1000, 1])
def test_every_uint16(white):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    got = rgb_frame(values, **({} if white is None else {"white_level": white}))
    assert got.shape == (256, 256, 3)
    for channel in range(3):
        assert_nearest(got[:, :, channel], values, white or 65535)


@pytest.mark.parametrize("white", [255, 254, 200, 128, 1, 510])
def test_every_uint8(white):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert_nearest(rgb_frame(values, white_level=white)[:, :, 0], values, white)


def test_twelve_bits():
    values = np.array([[0, 8, 9, 2048, 4087, 4095, 4096, 65535]], np.uint16)
    got = rgb_frame(values, white_level=4095)[0, :, 0]
    assert got.tolist() == [0, 0, 1, 128, 255, 255, 255, 255]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("white", [None, 1.0, 1023.0, 255])
def test_floats_bring_back_every_level(dtype, white):
    levels = np.arange(256).reshape(16, 16)
    image = (levels * ((white or 1.0) / 255)).astype(dtype)
    image = np.minimum(image, dtype(white or 1.0))
    got = rgb_frame(image, **({} if white is None else {"white_level": white}))
    assert_frame(got, np.stack([levels] * 3, axis=-1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_the_nearest_level(dtype):
    image = np.random.default_rng(3).random((60, 70, 3)).astype(dtype)
    got = rgb_frame(image)
    # Half a level, and the last bits of the dtype.
    slack = 255 * float(np.finfo(dtype).eps)
    assert np.abs(got - 255 * image.astype(np.float64)).max() <= 0.5 + slack


def test_float_extremes():
    image = np.array([[0.0, 1.0, -0.0, 0.5]], np.float32)
    assert rgb_frame(image)[0, :, 0].tolist() == [0, 255, 0, 128]


def test_big_endian_floats():
    image = np.linspace(0, 1, 256).reshape(16, 16)
    np.testing.assert_array_equal(rgb_frame(image.astype(">f4")), rgb_frame(image.astype("<f4")))


def test_big_endian_uint16():
    # As TIFF readers and GigE cameras deliver them.
    image = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(rgb_frame(image.astype(">u2")), rgb_frame(image))


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.001, 1.001, 255.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("place", [(0, 0, 0), (11, 16, 2), (5, 5, 1)])
def test_bad_floats(bad, dtype, place):
    image = np.full((12, 17, 3), 0.5, dtype)
    image[place] = bad
    with pytest.raises(FrameError, match="finite" if not np.isfinite(bad) else "outside"):
        rgb_frame(image)


def test_float_above_the_white_level_given():
    image = np.full((3, 4), 4095.0)
    rgb_frame(image, white_level=4095)
    image[1, 1] = 4095.5
    with pytest.raises(FrameError, match="4095"):
        rgb_frame(image, white_level=4095)


@pytest.mark.parametrize("white", [0, -1, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_bad_white_level(white, dtype):
    with pytest.raises(FrameError, match="white level"):
        rgb_frame(np.zeros((3, 4), dtype), white_level=white)


@pytest.mark.parametrize(
    "shape",
    [(), (5,), (5, 6, 2), (5, 6, 5), (3, 5, 6), (1, 5, 6, 3), (5, 6, 0), (4, 5, 6, 1)],
)
def test_wrong_shapes(shape):
    with pytest.raises(FrameError, match="shape"):
        rgb_frame(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (0, 5, 3), (5, 0, 4), (0, 5, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_empty(shape, dtype):
    with pytest.raises(FrameError, match="empty"):
        rgb_frame(np.zeros(shape, dtype))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int16, np.int32, np.int64, np.uint32, complex])
@pytest.mark.parametrize("white_level", [None, 255])
def test_wrong_dtypes(dtype, white_level):
    with pytest.raises(FrameError, match="dtype"):
        rgb_frame(np.zeros((3, 4), dtype), white_level=white_level)


def test_objects_and_texts():
    for image in (np.full((2, 2), None), np.full((2, 2), "a")):
        with pytest.raises(FrameError, match="dtype"):
            rgb_frame(image)


@pytest.mark.parametrize("thing", [None, [[0, 1], [2, 3]], "frame.png", b"\x00", 3])
def test_not_an_array(thing):
    with pytest.raises(FrameError, match="NumPy array"):
        rgb_frame(thing)


@pytest.mark.parametrize("order", ["RGB", "grb", "", None])
def test_unknown_channel_order(order):
    with pytest.raises(FrameError, match="channel order"):
        rgb_frame(colour(), channel_order=order)


def test_too_large():
    image = np.zeros((10, 20, 3), np.uint8)
    rgb_frame(image, max_pixels=200)
    with pytest.raises(FrameError, match="20x10"):
        rgb_frame(image, max_pixels=199)


def test_too_large_by_default():
    # A frame that takes no memory: one row, repeated.
    row = np.zeros((1, 10_000, 3), np.uint8)
    image = np.broadcast_to(row, (MAX_FRAME_PIXELS // 10_000 + 1, 10_000, 3))
    with pytest.raises(FrameError, match="limit of 100 MP"):
        rgb_frame(image)


def test_errors_say_what_to_do():
    with pytest.raises(FrameError) as caught:
        rgb_frame(np.zeros((5, 6, 2), np.uint8))
    assert "[5, 6, 2]" in caught.value.cause
    assert "channels" in caught.value.remedy
    assert caught.value.code == "frame"
