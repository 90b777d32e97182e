"""Writes tests/independent/hillas_reference.txt: results of ctapipe for simulated images.

    taiga-flow simulate --level images -o gamma.h5 --class gamma --events 60 --seed 7
    taiga-flow simulate --level images -o hadron.h5 --class hadron --events 60 --seed 7
    python hillas_reference.py gamma.h5 hadron.h5 > hillas_reference.txt

Each image has one line: the sum of all charges (to detect other images), the pixels kept by
`tailcuts_clean` at 14 and 7 p.e., and their `hillas_parameters`: size, x, y, length, width [deg],
psi [deg], skewness, kurtosis. Needs ctapipe and h5py (made with ctapipe 0.28.0). Positions are
angles: cm / 475 cm in rad, as deg.
"""

import sys

import astropy.units as u
import h5py
import numpy as np
from ctapipe.image import hillas_parameters, tailcuts_clean
from ctapipe.instrument import CameraGeometry
from ctapipe.instrument.camera.geometry import PixelShape

print("# sum pixels size x y length width psi skewness kurtosis")
for path in sys.argv[1:]:
    with h5py.File(path) as file:
        charge = file["images/charge"]
        scale = np.float32(charge.attrs["scale"])
        offset = np.float32(charge.attrs["offset"])
        images = charge[:].astype(np.float32) * scale + offset
        focal_cm = 100 * file["camera"].attrs["focal_length_m"]
        x, y = (np.degrees(file[f"camera/{axis}"][:] / focal_cm) for axis in "xy")
    pitch = np.degrees(3 / focal_cm)
    camera = CameraGeometry(
        "taiga",
        np.arange(len(x)),
        x * u.deg,
        y * u.deg,
        np.full(len(x), pitch**2 * np.sqrt(3) / 2) * u.deg**2,
        PixelShape.HEXAGON,
    )
    for image in images:
        kept = tailcuts_clean(camera, image, picture_thresh=14, boundary_thresh=7)
        total = repr(float(image.astype(np.float64).sum()))
        pixels = ",".join(map(str, np.flatnonzero(kept)))
        if not kept.any():
            print(total, "-")
            continue
        found = hillas_parameters(camera[kept], image[kept])
        values = [
            found.intensity,
            found.fov_lon.to_value(u.deg),
            found.fov_lat.to_value(u.deg),
            found.length.to_value(u.deg),
            found.width.to_value(u.deg),
            found.psi.to_value(u.deg),
            found.skewness,
            found.kurtosis,
        ]
        print(total, pixels, *(f"{value:.9g}" for value in values))
