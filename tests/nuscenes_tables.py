"""A made-up nuScenes: tables of v1.0-mini, scans, and the files that MMDetection3D makes of them.

Two scenes of the official mini split, a sensor that is turned on a car that is turned, objects that
move, an object without points and one of no class of the benchmark. The infos are made of the
tables by matrices in float64, without a line of the host or the devkit.
"""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np

SCENES = {"train": "scene-0061", "val": "scene-0103"}
CLASSES = (  # as the host's infos number them
    "car", "truck", "trailer", "bus", "construction_vehicle", "bicycle", "motorcycle",
    "pedestrian", "traffic_cone", "barrier",
)  # fmt: skip
# category, attribute, class, length, width, height, speed
KINDS = [
    ("vehicle.car", "vehicle.moving", "car", 4.6, 1.9, 1.7, 3.0),
    ("vehicle.car", "vehicle.parked", "car", 4.2, 1.8, 1.5, 0.0),
    ("human.pedestrian.adult", "pedestrian.moving", "pedestrian", 0.7, 0.6, 1.8, 1.0),
    ("movable_object.trafficcone", None, "traffic_cone", 0.4, 0.45, 0.9, 0.0),
    ("vehicle.bus.rigid", "vehicle.moving", "bus", 11.0, 2.9, 3.4, 2.0),
    ("animal", None, None, 0.8, 0.4, 0.6, 0.0),
    ("vehicle.truck", "vehicle.moving", "truck", 7.0, 2.5, 2.8, 1.5),
    ("vehicle.trailer", "vehicle.moving", "trailer", 9.0, 2.8, 3.5, 1.0),
    ("vehicle.construction", "vehicle.moving", "construction_vehicle", 6.0, 2.6, 3.0, 0.8),
    ("vehicle.bicycle", "cycle.with_rider", "bicycle", 1.7, 0.6, 1.4, 2.0),
    ("vehicle.motorcycle", "cycle.with_rider", "motorcycle", 2.1, 0.8, 1.5, 2.5),
    ("movable_object.barrier", None, "barrier", 0.5, 2.3, 1.0, 0.0),
]
OBJECTS = 2 * len(KINDS)


def token(*parts) -> str:
    return hashlib.md5("-".join(map(str, parts)).encode()).hexdigest()


def turn(yaw: float) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def pose(yaw: float, position) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn(yaw), position
    return matrix


def quaternion(yaw: float) -> list[float]:
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


SENSOR_YAW, SENSOR = -np.pi / 2, (0.94, 0.1, 1.84)


def write_nuscenes(root: Path, keyframes: int = 3, seed: int = 0) -> Path:
    """Tables, scans, infos of both splits and objects to paste; returns the root."""
    rng = np.random.default_rng(seed)
    tables: dict[str, list] = {
        name: []
        for name in ("ego_pose", "scene", "sample", "sample_data", "sample_annotation", "instance")
    }
    tables["sensor"] = [dict(token="lidar", channel="LIDAR_TOP", modality="lidar")]
    tables["calibrated_sensor"] = [
        dict(token="mounted", sensor_token="lidar", translation=list(SENSOR),
             rotation=quaternion(SENSOR_YAW), camera_intrinsic=[])
    ]  # fmt: skip
    names = dict.fromkeys(kind[0] for kind in KINDS)
    tables["category"] = [
        dict(token=token(n), name=n, description="", index=i) for i, n in enumerate(names)
    ]
    attributes = dict.fromkeys(kind[1] for kind in KINDS if kind[1])
    tables["attribute"] = [dict(token=token(n), name=n, description="") for n in attributes]
    tables["visibility"] = [dict(token="4", level="v80-100", description="")]
    tables["log"] = [dict(token="log", logfile="", vehicle="", date_captured="", location="x")]
    tables["map"] = [dict(token="map", log_tokens=["log"], category="", filename="maps/none.png")]
    for folder in ("samples/LIDAR_TOP", "v1.0-mini", "maps", "nuscenes_gt_database"):
        (root / folder).mkdir(parents=True)
    (root / "maps/none.png").touch()

    for split, scene in SCENES.items():
        infos, pasted, before = [], {name: [] for name in CLASSES}, np.eye(4)
        samples = [token(scene, k) for k in range(keyframes)]
        scans = [token(scene, "scan", k) for k in range(keyframes)]
        tables["scene"].append(
            dict(token=token(scene), name=scene, description="", log_token="log",
                 nbr_samples=keyframes, first_sample_token=samples[0],
                 last_sample_token=samples[-1])
        )  # fmt: skip
        objects = []
        for number in range(OBJECTS):
            category, attribute, name, *sizes, speed = KINDS[number % len(KINDS)]
            radius, angle = rng.uniform(5, 21), 2 * np.pi * (number + rng.uniform(0, 0.5)) / OBJECTS
            objects.append(dict(
                category=category, attribute=attribute, name=name,
                size=np.array(sizes) * rng.uniform(0.9, 1.1), speed=speed,
                start=np.array([radius * np.cos(angle), radius * np.sin(angle), 0.9]),
                yaw=rng.uniform(-np.pi, np.pi), token=token(scene, "object", number),
                empty=number == len(KINDS) + 2,  # the second pedestrian
            ))  # fmt: skip
            notes = [token(scene, "note", number, k) for k in range(keyframes)]
            tables["instance"].append(
                dict(token=objects[-1]["token"], category_token=token(category),
                     nbr_annotations=keyframes, first_annotation_token=notes[0],
                     last_annotation_token=notes[-1])
            )  # fmt: skip
        for k, (sample, scan) in enumerate(zip(samples, scans)):
            ego_yaw, ego = 0.7 + 0.1 * k, np.array([400.0 + 2 * k, 1100.0 + k, 0.0])
            stamp = 1_500_000_000_000_000 + 500_000 * k
            file = f"samples/LIDAR_TOP/{scene}__LIDAR_TOP__{stamp}.pcd.bin"
            tables["ego_pose"].append(
                dict(token=scan, timestamp=stamp, rotation=quaternion(ego_yaw),
                     translation=ego.tolist())
            )  # fmt: skip
            tables["sample"].append(
                dict(token=sample, timestamp=stamp, prev=["", *samples][k],
                     next=[*samples, ""][k + 1], scene_token=token(scene))
            )  # fmt: skip
            tables["sample_data"].append(
                dict(token=scan, sample_token=sample, ego_pose_token=scan,
                     calibrated_sensor_token="mounted", timestamp=stamp, fileformat="pcd",
                     is_key_frame=True, height=0, width=0, filename=file,
                     prev=["", *scans][k], next=[*scans, ""][k + 1])
            )  # fmt: skip
            ego_to_world, sensor_to_ego = pose(ego_yaw, ego), pose(SENSOR_YAW, SENSOR)
            sensor_to_world = ego_to_world @ sensor_to_ego
            world_to_sensor = np.linalg.inv(sensor_to_world)
            sweeps = []
            if infos:  # the scan before, by the host's transposed matrix and negative shift
                moved = world_to_sensor @ before
                moved[:3, :3], moved[:3, 3] = moved[:3, :3].T.copy(), -moved[:3, 3]
                last = infos[-1]["lidar_points"]["lidar_path"]
                points = dict(lidar_path=f"samples/LIDAR_TOP/{last}", lidar2sensor=moved.tolist())
                sweeps.append(dict(timestamp=stamp / 1e6 - 0.5, lidar_points=points))
            before = sensor_to_world
            ground = np.column_stack([rng.uniform(-24, 24, (2500, 2)), np.full(2500, -1.84)])
            clutter = rng.uniform(-1, 1, (400, 3)) * [0.5, 0.5, 1.5]
            clutter += np.repeat(rng.uniform(-22, 22, (20, 3)) * [1, 1, 0], 20, axis=0)
            parts, instances = [ground, clutter], []
            for number, thing in enumerate(objects):
                heading = np.array([np.cos(thing["yaw"]), np.sin(thing["yaw"]), 0])
                centre = turn(0.7) @ thing["start"] + [400, 1100, 0]
                centre = centre + 0.5 * k * thing["speed"] * heading
                points = 0 if thing["empty"] else 120
                note = token(scene, "note", number, k)
                tables["sample_annotation"].append(
                    dict(token=note, sample_token=sample, instance_token=thing["token"],
                         visibility_token="4",
                         attribute_tokens=[token(thing["attribute"])] if thing["attribute"] else [],
                         translation=centre.tolist(), size=thing["size"][[1, 0, 2]].tolist(),
                         rotation=quaternion(thing["yaw"]), num_lidar_pts=points, num_radar_pts=0,
                         prev=token(scene, "note", number, k - 1) if k else "",
                         next=token(scene, "note", number, k + 1) if k + 1 < keyframes else "")
                )  # fmt: skip
                local = (world_to_sensor @ [*centre, 1])[:3]
                ahead = world_to_sensor[:3, :3] @ heading
                yaw = float(np.arctan2(ahead[1], ahead[0]))
                inside = rng.uniform(-0.5, 0.5, (points, 3)) * thing["size"] @ turn(yaw).T
                parts.append(inside + local)
                if thing["name"] is None:
                    continue
                label = CLASSES.index(thing["name"])
                speed = (world_to_sensor[:3, :3] @ (thing["speed"] * heading))[:2]
                box = [*local.tolist(), *thing["size"].tolist(), yaw]
                instances.append(
                    dict(bbox_label=label, bbox_3d=box, bbox_3d_isvalid=points > 0,
                         bbox_label_3d=label, num_lidar_pts=points, num_radar_pts=0,
                         velocity=speed.tolist())
                )  # fmt: skip
                if points:
                    piece = f"nuscenes_gt_database/{scene}_{k}_{number}.bin"
                    columns = rng.uniform(0, 255, (points, 1)), np.zeros((points, 1))
                    np.hstack([inside, *columns]).astype(np.float32).tofile(root / piece)
                    pasted[thing["name"]].append(
                        dict(name=thing["name"], path=piece, image_idx=k, gt_idx=number,
                             box3d_lidar=np.array([*box, *speed]), num_points_in_gt=points,
                             difficulty=0, group_id=number)
                    )  # fmt: skip
            cloud = np.concatenate(parts)
            others = rng.uniform(0, 255, (len(cloud), 1)), np.zeros((len(cloud), 1))
            np.hstack([cloud, *others]).astype(np.float32).tofile(root / file)
            infos.append(dict(
                sample_idx=k, token=sample, timestamp=stamp / 1e6,
                ego2global=ego_to_world.tolist(), images={},
                lidar_points=dict(num_pts_feats=5, lidar_path=Path(file).name,
                                  lidar2ego=sensor_to_ego.tolist()),
                lidar_sweeps=sweeps, instances=instances,
            ))  # fmt: skip
        meta = dict(
            categories={name: i for i, name in enumerate(CLASSES)},
            dataset="nuscenes", version="v1.0-mini", info_version="1.1",
        )  # fmt: skip
        content = pickle.dumps(dict(metainfo=meta, data_list=infos))
        (root / f"nuscenes_infos_{split}.pkl").write_bytes(content)
        if split == "train":
            (root / "nuscenes_dbinfos_train.pkl").write_bytes(pickle.dumps(pasted))
    for name, rows in tables.items():
        (root / "v1.0-mini" / f"{name}.json").write_text(json.dumps(rows))
    return root
