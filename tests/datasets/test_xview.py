"""xView: one GeoJSON file with the boxes of all pictures, with its quirks."""

from __future__ import annotations

import json

import pytest

LAYOUT = {"archive": "images.zip", "images": "train_images/{name}.tif", "labels": "xView_train.geojson"}
GOOD = {"image_id": "5.tif", "type_id": 18, "bounds_imcoords": "2,3,12,13"}


def run(workplace, properties: list[object], **layout):
    features = [{"type": "Feature", "properties": p, "geometry": None} for p in properties]
    names = ("5", "7")
    workplace.archive("images.zip", {f"train_images/{n}.tif": workplace.noise((30, 40), "TIFF") for n in names})
    content = json.dumps({"type": "FeatureCollection", "features": features})
    workplace.archive("labels.zip", {"xView_train.geojson": content})
    return workplace.features(
        tasks=["detection"],
        form="xview",
        files=[{"name": "images.zip"}, {"name": "labels.zip"}],
        layout={**LAYOUT, "label_archive": "labels.zip", **layout},
        classes=[{"name": "vehicle", "aliases": ["18", "19"]}],
    )


def test_scenes_with_the_publishers_quirks(workplace, caplog):
    quirks = [
        {**GOOD, "type_id": 73},
        {**GOOD, "image_id": "1395.tif"},
        {**GOOD, "type_id": 19, "bounds_imcoords": "-3,20,50,25"},
        {**GOOD, "bounds_imcoords": "9,9,9,12"},
    ]
    with caplog.at_level("WARNING", "rvkernels"):
        scenes, features = run(workplace, [GOOD, *quirks], only_listed=True)
    assert [s.id for s in scenes] == ["5", "7"]
    assert features[0].boxes.tolist() == [[3, 2, 13, 12], [20, 0, 25, 40]]
    assert features[1].boxes.shape == (0, 4)
    assert "1 pictures with labels are not there, first 1395.tif" in caplog.text
    assert "feature 4: has no area in its picture, left out (1 in 5)" in caplog.text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"type_id": 73}, r"class '73' is not in the class list"),
        ({"bounds_imcoords": "2,3,12"}, r"expected bounds_imcoords xmin,ymin,xmax,ymax, got '2 3 12'"),
        ({"bounds_imcoords": "2,3,12,a"}, r"expected bounds_imcoords xmin,ymin,xmax,ymax"),
    ],
)
def test_mistakes(workplace, change, says):
    with pytest.raises(ValueError, match=rf"xView_train\.geojson: feature 1: {says}") as error:
        run(workplace, [GOOD, {**GOOD, **change}])
    assert "\n" not in str(error.value)


def test_a_property_is_missing(workplace):
    with pytest.raises(ValueError, match=r"feature 0: properties: type_id is missing"):
        run(workplace, [{"image_id": "5.tif"}])


def test_a_file_that_is_not_there(workplace):
    with pytest.raises(ValueError, match=r"no file 'xView\.geojson'; .*Did you mean 'xView_train\.geojson'"):
        run(workplace, [GOOD], labels="xView.geojson")
