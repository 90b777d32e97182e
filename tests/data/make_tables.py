"""Writes small tables with the tools of each dialect, and their expected contents.

    python -m venv /tmp/tables && /tmp/tables/bin/pip install h5py tables pandas ctapipe
    /tmp/tables/bin/python tests/data/make_tables.py tests/data

The showers are generated. expected.json contains the quantities in canonical units, computed
here with NumPy from the same showers.
"""

import json
import sys
import warnings
from pathlib import Path

import astropy.units as u
import h5py
import numpy as np
import pandas as pd
import tables
from ctapipe.containers import (
    CameraHillasParametersContainer,
    ConcentrationContainer,
    HillasParametersContainer,
    LeakageContainer,
    MorphologyContainer,
    TelEventIndexContainer,
)
from ctapipe.core import Container, Field
from ctapipe.io import HDF5TableWriter
from ctapipe.io.tableio import FixedPointColumnTransform

warnings.filterwarnings("ignore")
ROWS = 60
folder = Path(sys.argv[1])
random = np.random.default_rng(20260722)
versions = {name: __import__(name).__version__ for name in ["ctapipe", "tables", "pandas", "h5py"]}
expected = {"versions": versions, "files": {}}


def showers():
    """Returns generated images: centroid, axis and source in degrees."""
    s = {}
    s["size"] = np.exp(random.normal(6.0, 1.0, ROWS))
    s["length"] = random.uniform(0.15, 0.6, ROWS)
    s["width"] = s["length"] * random.uniform(0.1, 0.9, ROWS)
    s["cog_x"] = random.normal(0.0, 1.0, ROWS)
    s["cog_y"] = random.normal(0.0, 1.0, ROWS)
    s["delta"] = random.uniform(-89.0, 89.0, ROWS)
    azimuth = random.uniform(0.0, 2 * np.pi, ROWS)
    s["source_x"] = 1.2 * np.cos(azimuth)
    s["source_y"] = 1.2 * np.sin(azimuth)
    s["con1"] = random.uniform(0.05, 0.4, ROWS)
    s["con2"] = s["con1"] * random.uniform(1.1, 1.9, ROWS)
    s["skewness"] = random.normal(0.0, 0.4, ROWS)
    s["energy"] = 10 ** random.uniform(0.5, 2.0, ROWS)
    s["run_id"] = np.full(ROWS, 41)
    s["event_id"] = np.arange(ROWS) * 7 + 100
    return s


def with_source(s, x=None, y=None):
    """Adds dist and alpha [deg] for the source of each image, or for one position."""
    s = dict(s)
    x = s["source_x"] if x is None else x
    y = s["source_y"] if y is None else y
    dx, dy = s["cog_x"] - x, s["cog_y"] - y
    s["dist"] = np.hypot(dx, dy)
    axis = np.radians(s["delta"])
    sine = np.abs(np.cos(axis) * dy - np.sin(axis) * dx) / s["dist"]
    s["alpha"] = np.degrees(np.arcsin(np.clip(sine, 0, 1)))
    return s


def note(name, schema, s, quantities, keys, classes=None):
    rows = len(s["size"])
    expected["files"][name] = {
        "schema": schema,
        "rows": rows,
        "quantities": {q: [None if np.isnan(x) else float(x) for x in s[q]] for q in quantities},
        "keys": {k: [int(x) for x in s[k]] for k in keys},
        "class": classes,
    }


SIX = ["size", "length", "width", "dist", "alpha", "con2"]

# --- pandas, PyTables, h5py -------------------------------------------------------------
s = with_source(showers())
frame = pd.DataFrame({q: s[q] for q in SIX + ["skewness"]})
frame["width"] = frame["width"].astype("f4")
frame["run_id"] = s["run_id"]
frame["event_id"] = s["event_id"]
frame["good"] = s["size"] > 400
frame["comment"] = "made up"
frame["class"] = np.arange(ROWS, dtype="i8") % 2
classes = [int(c) for c in frame["class"]]
s["width"] = frame["width"].to_numpy().astype("f8")
numbers = frame.drop(columns="comment")
for name, options, table in [
    ("pandas-fixed.h5", {"format": "fixed"}, numbers),
    ("pandas-table.h5", {"format": "table"}, frame),
    ("pandas-columns.h5", {"format": "table", "data_columns": True, "complevel": 5, "complib": "blosc:zstd"}, frame),
]:
    (folder / name).unlink(missing_ok=True)
    table.to_hdf(folder / name, key="hillas", **options)
    note(name, "pandas", s, SIX + ["skewness"], ["run_id", "event_id"], classes)


class Row(tables.IsDescription):
    run_id = tables.Int64Col()
    event_id = tables.UInt32Col()
    tag = tables.StringCol(8)
    good = tables.BoolCol()
    size = tables.Float64Col()
    length = tables.Float32Col()
    width = tables.Float32Col()
    dist = tables.Float32Col()
    alpha = tables.Float64Col()
    con2 = tables.Float16Col()
    times = tables.Float32Col(shape=(4,))
    moments = tables.Float32Col(shape=(2, 2))


with tables.open_file(folder / "pytables.h5", "w") as file:
    filters = tables.Filters(complevel=5, complib="zlib", shuffle=True, fletcher32=True)
    table = file.create_table("/events", "hillas", Row, createparents=True, filters=filters)
    for i in range(ROWS):
        row = table.row
        for name in ["run_id", "event_id", *SIX]:
            row[name] = s[name][i]
        row["tag"] = b"x"
        row["good"] = i % 3 == 0
        row["times"] = np.arange(4) + i
        row.append()
    table.flush()
    stored = table.read()
p = {name: stored[name].astype("f8") for name in SIX}
p |= {"run_id": s["run_id"], "event_id": s["event_id"], "times[2]": np.arange(ROWS) + 2.0, "good": np.arange(ROWS) % 3 == 0}
note("pytables.h5", "pytables", p, SIX + ["times[2]", "good"], ["run_id", "event_id"])

with h5py.File(folder / "matrix.h5", "w") as file:
    names = SIX + ["run_id", "event_id"]
    data = np.stack([s[name] for name in names], axis=1)
    matrix = file.create_dataset("hillas", data=data, chunks=(16, 3), compression="gzip", shuffle=True, fletcher32=True)
    matrix.attrs["columns"] = np.array(names, dtype="S16")
    matrix.attrs["units"] = np.array(["p.e.", "deg", "deg", "deg", "deg", "", "", ""], dtype="S8")
note("matrix.h5", "matrix", s, SIX, ["run_id", "event_id"])


# --- ctapipe ----------------------------------------------------------------------------
def index(s, i, telescope):
    return TelEventIndexContainer(obs_id=41, event_id=int(s["event_id"][i]), tel_id=telescope)


def others(s, i):
    leakage = LeakageContainer(
        pixels_width_1=0.1, pixels_width_2=0.2, intensity_width_1=0.01, intensity_width_2=0.02
    )
    return [
        leakage,
        ConcentrationContainer(cog=0.2, core=0.5, pixel=s["con1"][i]),
        MorphologyContainer(n_pixels=20, n_islands=1, n_small_islands=0, n_medium_islands=1, n_large_islands=0),
    ]


parts = [with_source(showers(), 0.0, 0.0) for _ in range(2)]
with HDF5TableWriter(folder / "ctapipe.h5", mode="w", add_prefix=True) as writer:
    # Coarse on purpose: the values read must be those that ctapipe itself reads back.
    transform = FixedPointColumnTransform(scale=1000, offset=0, source_dtype="f4", target_dtype="i2")
    for telescope, s in zip([1, 2], parts):
        place = f"dl1/event/telescope/parameters/tel_{telescope:03d}"
        writer.add_column_transform(place, "hillas_skewness", transform)
        s["skewness"][3] = np.nan
        for i in range(ROWS):
            hillas = HillasParametersContainer(
                intensity=s["size"][i],
                skewness=s["skewness"][i],
                kurtosis=3.0,
                fov_lon=s["cog_x"][i] * u.deg,
                fov_lat=s["cog_y"][i] * u.deg,
                r=0 * u.deg,
                phi=0 * u.deg,
                length=s["length"][i] * u.deg,
                length_uncertainty=0 * u.deg,
                width=s["width"][i] * u.deg,
                width_uncertainty=0 * u.deg,
                psi=s["delta"][i] * u.deg,
            )
            writer.write(place, [index(s, i, telescope), hillas, *others(s, i)])
c = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
c["skewness"] = np.round(c["skewness"] * 1000) / 1000
c["tel_id"] = np.repeat([1, 2], ROWS)
note("ctapipe.h5", "ctapipe", c, ["size", "length", "width", "dist", "alpha", "con1", "skewness"], ["run_id", "event_id", "tel_id"])

DEG_PER_M = np.degrees(1 / 29.30565)  # effective focal length of the LST
s = with_source(showers(), 0.0, 0.0)
with HDF5TableWriter(folder / "ctapipe-camera.h5", mode="w", add_prefix=True) as writer:
    for i in range(ROWS):
        metres = lambda name: s[name][i] / DEG_PER_M * u.m  # noqa: E731
        hillas = CameraHillasParametersContainer(
            intensity=s["size"][i], skewness=s["skewness"][i], kurtosis=3.0,
            x=metres("cog_x"), y=metres("cog_y"), r=0 * u.m, phi=0 * u.deg,
            length=metres("length"), length_uncertainty=0 * u.m,
            width=metres("width"), width_uncertainty=0 * u.m, psi=s["delta"][i] * u.deg,
        )
        writer.write("dl1/event/telescope/parameters/tel_001", [index(s, i, 1), hillas, *others(s, i)])
s["tel_id"] = np.ones(ROWS)
note("ctapipe-camera.h5", "ctapipe-camera", s, ["size", "length", "width", "dist", "alpha", "con1"], ["run_id", "event_id", "tel_id"])


# --- lstchain: its columns and places, written with the writer that it uses -------------
class Lst(Container):
    default_prefix = ""
    obs_id = Field(0)
    event_id = Field(0)
    tel_id = Field(0)
    intensity = Field(np.nan)
    x = Field(np.nan * u.m, unit=u.m)
    y = Field(np.nan * u.m, unit=u.m)
    length = Field(np.nan * u.deg, unit=u.deg)
    width = Field(np.nan * u.deg, unit=u.deg)
    psi = Field(np.nan * u.rad, unit=u.rad)
    skewness = Field(np.nan)
    kurtosis = Field(np.nan)
    wl = Field(np.nan)
    src_x = Field(np.nan * u.m, unit=u.m)
    src_y = Field(np.nan * u.m, unit=u.m)
    concentration_pixel = Field(np.nan)
    leakage_intensity_width_1 = Field(np.nan)
    leakage_intensity_width_2 = Field(np.nan)
    n_islands = Field(1)
    n_pixels = Field(20)
    mc_energy = Field(np.nan * u.TeV, unit=u.TeV)
    mc_type = Field(0)


s = with_source(showers())
with HDF5TableWriter(folder / "lstchain.h5", mode="w", add_prefix=False) as writer:
    for i in range(ROWS):
        metres = lambda name: s[name][i] / DEG_PER_M * u.m  # noqa: E731
        writer.write("dl1/event/telescope/parameters/LST_LSTCam", Lst(
            obs_id=41, event_id=int(s["event_id"][i]), tel_id=1, intensity=s["size"][i],
            x=metres("cog_x"), y=metres("cog_y"), length=s["length"][i] * u.deg, width=s["width"][i] * u.deg,
            psi=np.radians(s["delta"][i]) * u.rad, skewness=s["skewness"][i], kurtosis=3.0,
            wl=s["width"][i] / s["length"][i], src_x=metres("source_x"), src_y=metres("source_y"),
            concentration_pixel=s["con1"][i], leakage_intensity_width_1=0.01, leakage_intensity_width_2=0.02,
            mc_energy=s["energy"][i] * u.TeV, mc_type=[0, 101][i % 2],
        ))
note("lstchain.h5", "lstchain", s, ["size", "length", "width", "dist", "alpha", "con1", "energy", "source_x"], ["run_id", "event_id"],
     [1 - i % 2 for i in range(ROWS)])

# --- FACT: columns of FACT-Tools, as aict-tools reads them ------------------------------
DEG_PER_MM = 0.0117193246260285378
with h5py.File(folder / "fact-like.h5", "w") as file:
    group = file.create_group("events")
    mm = lambda name: s[name] / DEG_PER_MM  # noqa: E731
    columns = {
        "size": s["size"], "length": mm("length"), "width": mm("width"), "cog_x": mm("cog_x"), "cog_y": mm("cog_y"),
        "delta": np.radians(s["delta"]), "source_position_x": mm("source_x"), "source_position_y": mm("source_y"),
        "concentration_one_pixel": s["con1"], "concentration_two_pixel": s["con2"],
        "run_id": s["run_id"], "event_num": s["event_id"],
        "corsika_run_header_particle_id": np.ones(ROWS, dtype="i4"),
        "corsika_run_header_run_number": s["run_id"], "corsika_event_header_event_number": s["event_id"],
        "corsika_event_header_total_energy": s["energy"] * 1000,
    }
    for name, values in columns.items():
        group.create_dataset(name, data=values, maxshape=(None,))
note("fact-like.h5", "fact", s, SIX + ["energy"], ["run_id", "event_id"], [1] * ROWS)

# --- TAIGA's CSV ------------------------------------------------------------------------
slope = np.tan(np.radians(s["delta"]))
intercept = s["cog_y"] - slope * s["cog_x"]
EXPERIMENT = (
    "por,event_numb,time,unix_time_ns,delta_time,error_deg,tel_az,tel_el,source_az,source_el,CR100phe,CR_portion,numb_pix,"
    "num_islands,size,Xc[0],Yc[0],con_selected_island,con2,length[0],width[0],dist[0],dist[1],dist[2],skewness[0],"
    "skewness[1],skewness[2],kurtosis,alpha[0],alpha[1],alpha[2],a_axis,b_axis,a_dist[1],b_dist[1],a_dist[2],b_dist[2],"
    "tel_ra,tel_dec,source_ra,source_dec,source_x,source_y,tracking,good,star,edge,weather_mark,alpha_c"
).split(",")
MC = (
    "clean_number,event_number,axis_scatter,numb_pix,energy,size,Xc,Yc,con2,length,width,dist0,dist1,dist2,azwidth,miss,"
    "alpha0,alpha1,alpha2,a_axis,b_axis,x_max_coord,y_max_coord,skewness_l,kurtosis_l,skewness_w,kurtosis_w,edge,"
    "source_x,source_y,x_ground,y_ground,tel_tet,tel_fi,source_tet,source_fi,Xmax,num_islands,con_selected_island"
).split(",")
NEWER = {"Xc": "Xc[0]", "Yc": "Yc[0]", "length": "length[0]", "width": "width[0]", "dist0": "dist[0]", "dist1": "dist[1]",
         "azwidth": "azwidth[1]", "miss": "miss[1]", "alpha0": "alpha[0]", "alpha1": "alpha[1]", "a_axis": "a_axis[0]",
         "b_axis": "b_axis[0]"}


def lines(names, values, digits):
    text = [",".join(names)]
    for i in range(ROWS):
        cells = []
        for name in names:
            value = values.get(name, 0)
            value = value if isinstance(value, (int, float, str)) else value[i]
            cells.append(value if isinstance(value, str) else f"{value:.{digits.get(name, 6)}f}" if isinstance(value, (float, np.floating)) else str(value))
        text.append(",".join(cells))
    return "\n".join(text) + "\n"


common = {"numb_pix": 20, "num_islands": 1, "size": s["size"], "con2": s["con2"], "con_selected_island": 1.0,
          "a_axis": slope, "b_axis": intercept, "source_x": s["source_x"], "source_y": s["source_y"]}
values = common | {
    "por": np.arange(ROWS) // 20 + 1, "event_numb": np.arange(ROWS) % 20 + 1, "time": "20:14:02.123456789",
    "unix_time_ns": 1700000000000000001 + np.arange(ROWS), "Xc[0]": s["cog_x"], "Yc[0]": s["cog_y"],
    "length[0]": s["length"], "width[0]": s["width"], "dist[0]": np.hypot(s["cog_x"], s["cog_y"]), "dist[1]": s["dist"],
    "dist[2]": with_source(s, -s["source_x"], -s["source_y"])["dist"], "alpha[0]": with_source(s, 0, 0)["alpha"],
    "alpha[1]": s["alpha"], "alpha[2]": with_source(s, -s["source_x"], -s["source_y"])["alpha"],
    "tel_el": 55.0, "tracking": 1, "good": 1, "CR_portion": 6.25, "weather_mark": 9, "skewness[1]": s["skewness"],
}
(folder / "taiga-experiment.csv").write_text(lines(EXPERIMENT, values, {"alpha[0]": 1, "alpha[1]": 1, "alpha[2]": 1, "con2": 2, "size": 2}))
expected["files"]["taiga-experiment.csv"] = {
    "schema": "taiga-experiment", "rows": ROWS,
    "quantities": {q: [float(x) for x in s[q]] for q in ["length", "width", "dist", "alpha"]} | {"size": [round(float(x), 2) for x in s["size"]]},
    "keys": {"portion": [int(x) for x in values["por"]], "event_id": [int(x) for x in values["event_numb"]],
             "unix_time_ns": [int(x) for x in values["unix_time_ns"]]}, "class": None,
}
values = common | {
    "clean_number": np.arange(ROWS), "event_number": np.arange(ROWS) // 3, "axis_scatter": np.arange(ROWS) % 3,
    "energy": s["energy"], "Xc": s["cog_x"], "Yc": s["cog_y"], "length": s["length"], "width": s["width"],
    "dist0": np.hypot(s["cog_x"], s["cog_y"]), "dist1": s["dist"], "alpha0": with_source(s, 0, 0)["alpha"], "alpha1": s["alpha"],
    "dist2": with_source(s, -s["source_x"], -s["source_y"])["dist"], "alpha2": with_source(s, -s["source_x"], -s["source_y"])["alpha"],
}
keys = {"clean_number": list(range(ROWS)), "event_id": [i // 3 for i in range(ROWS)], "axis_scatter": [i % 3 for i in range(ROWS)]}
(folder / "taiga-mc.csv").write_text(lines(MC, values, {}))
note("taiga-mc.csv", "taiga-mc", s, SIX + ["energy"], [])
expected["files"]["taiga-mc.csv"]["keys"] = keys
newer = {NEWER.get(name, name): value for name, value in values.items()}
newer |= {"energy": np.array([f"{e * 1e12:.6e}" for e in s["energy"]], dtype=object), "con1": s["con1"], "con3": s["con2"] * 1.05}
names = [NEWER.get(name, name) for name in MC if name not in ("dist2", "alpha2")]
names[names.index("con2"):names.index("con2") + 1] = ["con1", "con2", "con3"]
(folder / "taiga-mc-newer.csv").write_text(lines(names, newer, {}))
note("taiga-mc-newer.csv", "taiga-mc-newer", s, SIX + ["energy", "con1"], [])
expected["files"]["taiga-mc-newer.csv"]["keys"] = keys

(folder / "expected.json").write_text(json.dumps(expected) + "\n")

# --- refused files ----------------------------------------------------------------------
with tables.open_file(folder / "blosc2.h5", "w") as file:
    filters = tables.Filters(complevel=5, complib="blosc2")
    table = file.create_table("/", "hillas", stored.dtype, filters=filters)
    table.append(stored)
with h5py.File(folder / "newer.h5", "w", libver="latest") as file:
    group = file.create_group("events")
    for name in SIX:
        group.create_dataset(name, data=s[name], chunks=(16,), maxshape=(None,), compression="gzip")
