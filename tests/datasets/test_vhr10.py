"""NWPU VHR-10: positive and negative pictures, a text file per positive one."""

from __future__ import annotations

import pytest

ROOT = "NWPU VHR-10 dataset"
LAYOUT = {
    "archive": "tiny.zip",
    "images": f"{ROOT}/positive image set/{{name}}.jpg",
    "labels": f"{ROOT}/ground truth/{{name}}.txt",
    "negatives": f"{ROOT}/negative image set/{{name}}.jpg",
}


def run(workplace, text: str):
    members = {
        f"{ROOT}/positive image set/001.jpg": workplace.noise((40, 50), "JPEG"),
        f"{ROOT}/negative image set/001.jpg": workplace.noise((30, 60), "JPEG"),
        f"{ROOT}/ground truth/001.txt": text,
    }
    workplace.archive("tiny.zip", members)
    return workplace.features(
        tasks=["detection"],
        form="vhr10",
        files=[{"name": "tiny.zip"}],
        layout=LAYOUT,
        classes=[{"name": "airplane", "aliases": ["1"]}, {"name": "ship", "aliases": ["2"]}],
    )


def test_scenes(workplace):
    scenes, features = run(workplace, "(10,20),(30,35),2 \r\n( 1, 2),( 3, 4), 1\r\n\r\n")
    assert [(s.id, s.rows, s.cols) for s in scenes] == [("001", 40, 50), ("negative_001", 30, 60)]
    assert features[0].class_ids.tolist() == [1, 0]
    assert features[0].boxes.tolist() == [[20, 10, 35, 30], [2, 1, 4, 3]]
    assert features[1].boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("(1,2),(3,4)", r"expected \(xmin,ymin\),\(xmax,ymax\),class, got '\(1,2\),\(3,4\)'"),
        ("1,2,3,4,1", r"expected \(xmin,ymin\)"),
        ("(1,x),(3,4),1", r"expected numbers xmin, ymin, xmax, ymax, got '1 x 3 4'"),
        ("(1,2),(1,4),1", r"the box is empty: x 1 to 1, y 2 to 4"),
        ("(1,2),(3,4),11", r"class '11' is not in the class list; there are airplane, ship"),
    ],
)
def test_mistakes(workplace, line, says):
    with pytest.raises(ValueError, match=rf"ground truth/001\.txt: line 2: {says}") as error:
        run(workplace, f"(10,20),(30,35),2\n{line}\n")
    assert "\n" not in str(error.value)


def test_a_label_file_that_is_no_text(workplace):
    with pytest.raises(ValueError, match=r"ground truth/001\.txt: not UTF-8 text"):
        run(workplace, b"\xff\xd8\xff")
