"""What makes one city look unlike the other: materials, street pattern, buildings, crops, trees, sun and air.

Lengths are pixels of 0.5 m. Colours are reflectances (red, green, blue, near infrared) in sunlight.
"""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[float, float, float, float]


@dataclass(frozen=True)
class Material:
    """A surface. `grain`, `patch` and `cloud` are relative amplitudes of noise at 0.25 m, 2 m and 15 m.

    `tint` moves the colour between lush and dry with the 15 m noise (vegetation only).
    """

    colour: Colour
    grain: float = 0.05
    patch: float = 0.04
    cloud: float = 0.05
    tint: float = 0.0


MATERIALS = {
    # paved
    "asphalt": Material((0.155, 0.150, 0.145, 0.170), 0.06, 0.05, 0.08),
    "new asphalt": Material((0.085, 0.083, 0.083, 0.100), 0.06, 0.04, 0.05),
    "pavement": Material((0.255, 0.245, 0.230, 0.280), 0.06, 0.05, 0.06),
    "red paving": Material((0.250, 0.170, 0.130, 0.300), 0.08, 0.06, 0.06),
    "kerb": Material((0.330, 0.325, 0.310, 0.350), 0.05, 0.05, 0.03),
    "concrete": Material((0.310, 0.300, 0.275, 0.350), 0.05, 0.06, 0.08),
    "gravel": Material((0.300, 0.275, 0.230, 0.350), 0.14, 0.08, 0.06),
    "track": Material((0.270, 0.220, 0.160, 0.340), 0.10, 0.12, 0.10),
    "paint": Material((0.500, 0.495, 0.480, 0.500), 0.10, 0.12, 0.05),
    # ground
    "lawn": Material((0.082, 0.115, 0.050, 0.430), 0.10, 0.08, 0.08, 0.12),
    "meadow": Material((0.105, 0.135, 0.065, 0.400), 0.13, 0.12, 0.12, 0.17),
    "dry grass": Material((0.205, 0.180, 0.110, 0.340), 0.12, 0.12, 0.12, 0.14),
    "verge": Material((0.130, 0.140, 0.075, 0.370), 0.14, 0.12, 0.12, 0.14),
    "soil": Material((0.225, 0.175, 0.125, 0.300), 0.08, 0.10, 0.12),
    "red soil": Material((0.275, 0.180, 0.120, 0.340), 0.08, 0.10, 0.12),
    "dark soil": Material((0.120, 0.098, 0.075, 0.180), 0.09, 0.10, 0.12),
    "sand": Material((0.330, 0.290, 0.220, 0.400), 0.07, 0.08, 0.08),
    "reed": Material((0.135, 0.145, 0.075, 0.350), 0.20, 0.15, 0.10, 0.10),
    "hedge": Material((0.045, 0.075, 0.030, 0.360), 0.20, 0.12, 0.05),
    "turf": Material((0.060, 0.110, 0.045, 0.430), 0.07, 0.04, 0.04, 0.05),
    "clay court": Material((0.290, 0.150, 0.090, 0.340), 0.05, 0.05, 0.04),
    "hard court": Material((0.080, 0.130, 0.120, 0.180), 0.04, 0.04, 0.04),
    # crops
    "young crop": Material((0.115, 0.145, 0.070, 0.400), 0.09, 0.06, 0.10, 0.16),
    "green cereal": Material((0.070, 0.120, 0.050, 0.480), 0.08, 0.05, 0.08, 0.12),
    "ripe cereal": Material((0.340, 0.270, 0.150, 0.440), 0.07, 0.05, 0.08, 0.06),
    "maize": Material((0.050, 0.088, 0.036, 0.470), 0.13, 0.06, 0.08, 0.10),
    "stubble": Material((0.290, 0.235, 0.150, 0.370), 0.08, 0.07, 0.10),
    "ploughed": Material((0.165, 0.130, 0.095, 0.230), 0.10, 0.08, 0.14),
    "red ploughed": Material((0.205, 0.140, 0.098, 0.280), 0.10, 0.08, 0.14),
    "vines": Material((0.160, 0.145, 0.085, 0.340), 0.12, 0.08, 0.10, 0.05),
    "orchard": Material((0.210, 0.175, 0.110, 0.340), 0.12, 0.10, 0.10, 0.2),
    # water
    "river": Material((0.060, 0.072, 0.058, 0.022), 0.05, 0.05, 0.10),
    "deep river": Material((0.042, 0.056, 0.050, 0.014), 0.05, 0.06, 0.10),
    "lake": Material((0.040, 0.062, 0.066, 0.016), 0.04, 0.04, 0.06),
    "deep lake": Material((0.022, 0.038, 0.048, 0.008), 0.04, 0.05, 0.06),
    "pool": Material((0.160, 0.400, 0.460, 0.050), 0.06, 0.04, 0.03),
    # roofs
    "terracotta": Material((0.310, 0.170, 0.110, 0.380), 0.10, 0.06, 0.06),
    "faded tile": Material((0.280, 0.200, 0.150, 0.350), 0.10, 0.08, 0.06),
    "brown tile": Material((0.150, 0.110, 0.088, 0.200), 0.10, 0.06, 0.05),
    "slate": Material((0.115, 0.117, 0.124, 0.135), 0.08, 0.06, 0.05),
    "dark tile": Material((0.080, 0.078, 0.080, 0.095), 0.08, 0.06, 0.05),
    "membrane": Material((0.470, 0.465, 0.440, 0.470), 0.04, 0.05, 0.06),
    "bitumen": Material((0.140, 0.138, 0.134, 0.155), 0.06, 0.08, 0.08),
    "roof gravel": Material((0.265, 0.250, 0.225, 0.300), 0.12, 0.06, 0.06),
    "green roof": Material((0.120, 0.130, 0.070, 0.370), 0.14, 0.14, 0.10, 0.20),
    "copper": Material((0.190, 0.290, 0.240, 0.300), 0.06, 0.06, 0.05),
    "grey metal": Material((0.340, 0.345, 0.345, 0.350), 0.03, 0.04, 0.05),
    "blue metal": Material((0.130, 0.190, 0.290, 0.280), 0.03, 0.04, 0.05),
    "solar panel": Material((0.040, 0.045, 0.075, 0.060), 0.04, 0.03, 0.02),
    "glass": Material((0.120, 0.135, 0.155, 0.120), 0.05, 0.02, 0.02),
    "parapet": Material((0.380, 0.370, 0.345, 0.400), 0.05, 0.05, 0.03),
}

CAR_COLOURS: tuple[tuple[Colour, float], ...] = (
    ((0.44, 0.44, 0.43, 0.43), 0.27),
    ((0.28, 0.285, 0.29, 0.29), 0.20),
    ((0.14, 0.14, 0.145, 0.15), 0.17),
    ((0.045, 0.045, 0.048, 0.06), 0.15),
    ((0.30, 0.040, 0.040, 0.34), 0.08),
    ((0.045, 0.080, 0.22, 0.16), 0.08),
    ((0.30, 0.26, 0.17, 0.36), 0.03),
    ((0.06, 0.15, 0.08, 0.16), 0.02),
)


@dataclass(frozen=True)
class Crop:
    """What grows on a field: rows `period` pixels apart that change the colour by the relative `contrast`."""

    material: str
    weight: float
    period: tuple[float, float]
    contrast: tuple[float, float]


@dataclass(frozen=True)
class City:
    """A style of settlement and landscape; every pair is a range drawn from per scene or per object."""

    name: str
    crs: str
    origin: tuple[float, float]  # of scene 0 in the CRS, metres
    bearing: tuple[float, float]  # of the streets, degrees
    warp: float  # how far streets wander from straight lines, pixels
    staggered: bool  # every row of blocks has its own cross streets
    block: tuple[tuple[float, float], tuple[float, float]]  # along, across
    street: tuple[float, float]  # carriageway of a residential street
    pavement: float
    plot: tuple[float, float]
    setback: tuple[float, float]
    terraces: float  # share of block sides with row houses
    hips: float  # share of houses with hipped roofs
    pools: float
    pitched: tuple[tuple[str, float], ...]  # roof materials with weights
    flat: tuple[tuple[str, float], ...]
    blocks: tuple[tuple[str, float], ...]  # use of urban blocks
    land: tuple[tuple[str, float], ...]  # use of rural parcels
    parcel: tuple[float, float]  # area, pixels
    crooked: float  # how far parcel boundaries turn from square, radians
    hedges: float  # share of parcel boundaries with a hedge
    grass: tuple[tuple[str, float], ...]
    crops: tuple[Crop, ...]
    soil: str
    crowns: tuple[tuple[Colour, float], ...]
    sun_azimuth: tuple[float, float]
    sun_elevation: tuple[float, float]
    haze: tuple[float, float]
    blur: tuple[float, float]  # standard deviation of the point spread function, pixels
    noise: tuple[float, float]
    warmth: tuple[float, float]  # red against blue of the sunlight
    urban: tuple[float, ...]  # urban share of scenes 0, 1, ... (repeats)
    water: tuple[str, ...]  # "river", "lake" or "" of scenes 0, 1, ...


CITIES = (
    City(
        name="a",
        crs="EPSG:32630",
        origin=(716000.0, 4370000.0),
        bearing=(8.0, 34.0),
        warp=0.0,
        staggered=False,
        block=((150.0, 240.0), (120.0, 165.0)),
        street=(13.0, 17.0),
        pavement=4.5,
        plot=(30.0, 38.0),
        setback=(3.0, 9.0),
        terraces=0.35,
        hips=0.45,
        pools=0.20,
        pitched=(("terracotta", 0.62), ("faded tile", 0.24), ("brown tile", 0.08), ("slate", 0.06)),
        flat=(("membrane", 0.34), ("roof gravel", 0.30), ("bitumen", 0.22), ("terracotta", 0.08), ("green roof", 0.06)),
        blocks=(("houses", 0.56), ("slabs", 0.12), ("shops", 0.12), ("works", 0.09), ("park", 0.09), ("bare", 0.02)),
        land=(("field", 0.70), ("wood", 0.12), ("meadow", 0.14), ("bare", 0.04)),
        parcel=(60000.0, 130000.0),
        crooked=0.06,
        hedges=0.15,
        grass=(("dry grass", 0.55), ("meadow", 0.20), ("lawn", 0.25)),
        crops=(
            Crop("ripe cereal", 0.20, (3.2, 4.4), (0.06, 0.13)),
            Crop("stubble", 0.16, (4.0, 6.5), (0.08, 0.18)),
            Crop("red ploughed", 0.20, (3.0, 5.0), (0.12, 0.24)),
            Crop("maize", 0.12, (3.0, 3.6), (0.16, 0.30)),
            Crop("green cereal", 0.10, (3.2, 4.4), (0.08, 0.16)),
            Crop("vines", 0.12, (5.0, 6.5), (0.40, 0.60)),
            Crop("orchard", 0.10, (11.0, 15.0), (0.02, 0.05)),
        ),
        soil="red soil",
        crowns=(
            ((0.052, 0.074, 0.036, 0.330), 0.50),
            ((0.038, 0.056, 0.030, 0.250), 0.30),
            ((0.090, 0.100, 0.058, 0.340), 0.20),
        ),
        sun_azimuth=(118.0, 158.0),
        sun_elevation=(48.0, 60.0),
        haze=(0.1, 0.7),
        blur=(0.45, 0.65),
        noise=(0.8, 1.3),
        warmth=(0.99, 1.06),
        urban=(0.80, 0.35, 0.60, 0.12, 0.95, 0.50, 0.62),
        water=("river", "lake", "", "river", "", "river", "lake"),
    ),
    City(
        name="b",
        crs="EPSG:32632",
        origin=(562000.0, 5934000.0),
        bearing=(-30.0, 30.0),
        warp=70.0,
        staggered=True,
        block=((170.0, 330.0), (120.0, 190.0)),
        street=(11.0, 14.0),
        pavement=3.5,
        plot=(32.0, 50.0),
        setback=(8.0, 18.0),
        terraces=0.25,
        hips=0.20,
        pools=0.01,
        pitched=(
            ("slate", 0.30),
            ("dark tile", 0.26),
            ("brown tile", 0.24),
            ("faded tile", 0.08),
            ("terracotta", 0.12),
        ),
        flat=(("bitumen", 0.40), ("roof gravel", 0.24), ("green roof", 0.20), ("membrane", 0.08), ("copper", 0.08)),
        blocks=(("houses", 0.60), ("slabs", 0.11), ("shops", 0.09), ("works", 0.08), ("park", 0.10), ("bare", 0.02)),
        land=(("field", 0.58), ("wood", 0.20), ("meadow", 0.19), ("bare", 0.03)),
        parcel=(16000.0, 55000.0),
        crooked=0.30,
        hedges=0.50,
        grass=(("lawn", 0.55), ("meadow", 0.40), ("dry grass", 0.05)),
        crops=(
            Crop("young crop", 0.22, (3.0, 4.4), (0.10, 0.22)),
            Crop("green cereal", 0.26, (3.2, 4.6), (0.08, 0.18)),
            Crop("ploughed", 0.20, (3.2, 5.5), (0.14, 0.26)),
            Crop("stubble", 0.12, (4.0, 6.5), (0.08, 0.18)),
            Crop("maize", 0.14, (3.0, 3.8), (0.16, 0.30)),
            Crop("orchard", 0.06, (11.0, 15.0), (0.02, 0.05)),
        ),
        soil="soil",
        crowns=(
            ((0.050, 0.085, 0.030, 0.440), 0.48),
            ((0.030, 0.050, 0.026, 0.270), 0.22),
            ((0.120, 0.105, 0.040, 0.400), 0.16),
            ((0.160, 0.095, 0.045, 0.360), 0.08),
            ((0.110, 0.095, 0.080, 0.220), 0.06),
        ),
        sun_azimuth=(192.0, 236.0),
        sun_elevation=(31.0, 44.0),
        haze=(0.5, 1.5),
        blur=(0.55, 0.80),
        noise=(1.0, 1.8),
        warmth=(0.97, 1.03),
        urban=(0.60, 0.30, 0.85, 0.45, 0.15, 0.90, 0.55),
        water=("lake", "river", "", "lake", "river", "", "river"),
    ),
)
