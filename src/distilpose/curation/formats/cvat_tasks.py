"""Images of one name in several tasks of a CVAT project."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from distilpose.curation.conversion.regions import Regions
from distilpose.curation.conversion.source import Source
from distilpose.curation.image_files import find_inside


def separate_tasks(images: list[Regions], tasks: Mapping[str, str], source: Source) -> None:
    """Give images of one name in several tasks the path of their own photograph.

    In an export of a project, 0001.jpg of the task cam1 and 0001.jpg of cam2 are two photographs. Each is looked for in a
    folder named after its task, its subset, or the task's number. If it is not there, its labels could belong to either
    photograph: they are left out and counted.

    Args:
        images: changed in place; `image` is empty and nothing is on it if the photograph is unknown.
        tasks: name of each task by its number.
        source: gives the image folder, and gets the count.
    """
    by_name: dict[str, list[Regions]] = defaultdict(list)
    for image in images:
        by_name[image.image].append(image)
    for name, same in by_name.items():
        if len({image.task for image in same}) < 2:
            continue
        places = {id(image): _place(image, tasks, source) for image in same}
        for image in same:
            place = places[id(image)]
            if place is not None and list(places.values()).count(place) == 1:
                image.image = place
                continue
            source.skip(
                "images whose name several tasks have", 1, f"{name[-60:]!r} of task {image.task[0][:20] or '?'}"
            )
            image.image, image.points, image.boxes = "", [], []


def _place(image: Regions, tasks: Mapping[str, str], source: Source) -> str | None:
    """Path of the photograph in the folder of its task, None if there is none."""
    number, subset = image.task
    folders = [folder for folder in (tasks.get(number), subset, number, f"task_{number}", f"task{number}") if folder]
    for folder in folders:
        for name in (f"{folder}/{image.image}", f"images/{folder}/{image.image}"):
            try:
                find_inside(source.images, name)
            except (OSError, ValueError):
                continue
            return name
    return None
