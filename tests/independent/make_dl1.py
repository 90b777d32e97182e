"""Writes a small DL1 file with ctapipe's own writer, for tests of the DL1 reader.

    python make_dl1.py FILE [--fixed-point]

Two telescopes with different cameras; images of ctapipe's toy source, cleaned with
tail cuts of 14 and 7. Needs ctapipe (made with 0.28.0).
"""

import sys

import astropy.units as u
import numpy as np
from astropy.coordinates import EarthLocation
from ctapipe.containers import ObservationBlockContainer, TriggerContainer
from ctapipe.core import Provenance
from ctapipe.image import tailcuts_clean
from ctapipe.instrument import (
    CameraDescription,
    CameraGeometry,
    CameraReadout,
    FocalLengthKind,
    OpticsDescription,
    ReflectorShape,
    SizeType,
    SubarrayDescription,
    TelescopeDescription,
)
from ctapipe.instrument.camera.geometry import PixelShape
from ctapipe.io import DataWriter
from ctapipe.io.toymodel import ToyEventSource


class Source(ToyEventSource):
    """Toy source of ctapipe, with the observation block that its writer requires."""

    is_simulation = False

    @property
    def observation_blocks(self):
        return {1: ObservationBlockContainer(obs_id=1, producer_id="toy")}


def camera(name, rings, pitch_m):
    """Returns a hexagonal camera with so many rings around its centre."""
    places = [
        (a + b / 2, b * np.sqrt(3) / 2)
        for a in range(-rings, rings + 1)
        for b in range(-rings, rings + 1)
        if abs(a + b) <= rings
    ]
    x, y = (pitch_m * np.array(places)).T * u.m
    count = len(places)
    geometry = CameraGeometry(
        name,
        np.arange(count),
        x,
        y,
        np.full(count, pitch_m**2 * np.sqrt(3) / 2) * u.m**2,
        PixelShape.HEXAGON,
    )
    readout = CameraReadout(
        name, u.Quantity(1, u.GHz), np.ones((1, 3)), u.Quantity(1, u.ns), 1, count, 40
    )
    return CameraDescription(name, geometry, readout)


def telescope(name, camera, focal_length_m):
    optics = OpticsDescription(
        name,
        SizeType.SST,
        1,
        focal_length_m * u.m,
        1.01 * focal_length_m * u.m,
        10 * u.m**2,
        34,
        ReflectorShape.DAVIES_COTTON,
    )
    return TelescopeDescription(name, optics, camera)


def main():
    path, fixed_point = sys.argv[1], "--fixed-point" in sys.argv[2:]
    small, large = camera("small", 5, 0.03), camera("large", 6, 0.05)
    subarray = SubarrayDescription(
        "two",
        {1: [0, 0, 0] * u.m, 7: [300, 0, 0] * u.m},
        {1: telescope("A", small, 4.75), 7: telescope("B", large, 5.6)},
        EarthLocation.from_geodetic(103 * u.deg, 51.8 * u.deg, 675 * u.m),
    )
    source = Source(subarray=subarray, max_events=15, seed=1)
    settings = dict(
        output_path=path,
        overwrite=True,
        write_dl1_images=True,
        write_dl1_parameters=False,
        write_r0_waveforms=False,
        transform_image=fixed_point,
        image_dtype="int16",
        image_scale=10.0,
        image_offset=-100,
    )
    rng = np.random.default_rng(3)
    Provenance().start_activity("toy images")
    with DataWriter(event_source=source, **settings) as writer:
        for event in source:
            for tel_id, dl1 in event.dl1.tel.items():
                geometry = subarray.tel[tel_id].camera.geometry
                image = dl1.image + rng.normal(0, 3, len(dl1.image))
                dl1.image = image.astype(np.float32)
                dl1.peak_time = np.zeros(len(image), np.float32)
                dl1.image_mask = tailcuts_clean(geometry, dl1.image, 14, 7)
            event.trigger = TriggerContainer(tels_with_trigger=list(event.dl1.tel))
            writer(event)


if __name__ == "__main__":
    main()
