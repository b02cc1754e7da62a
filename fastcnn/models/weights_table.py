"""The weights that torchvision publishes for the networks here: file, parameters, accuracy, smallest image, sizes.

Figures are those of torchvision's documentation: accuracy in percent on ImageNet's validation images (FCN: mean
intersection over union and pixel accuracy on COCO 2017 with VOC's labels).
"""

from __future__ import annotations

from typing import Any

from fastcnn.models.weights import SITE, Weights, WeightsEnum

_VOC_CLASSES = (
    "__background__", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def _imagenet(
    file: str,
    num_params: int,
    top1: float | None,
    top5: float | None,
    smallest: int,
    *,
    resize: int = 256,
    crop: int = 224,
    preprocess: dict[str, Any] | None = None,
    **more: Any,
) -> Weights:
    facts: dict[str, Any] = {"num_params": num_params, "min_size": (smallest, smallest), "acc@1": top1, "acc@5": top5}
    sizes: dict[str, Any] = {"resize_size": resize, "crop_size": crop, **(preprocess or {})}
    return Weights(SITE + file, preprocess=sizes, **more, **facts)


class AlexNet_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("alexnet-owt-7be5be79.pth", 61100840, 56.522, 79.066, 63)
    DEFAULT = IMAGENET1K_V1


class VGG11_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("vgg11-8a719046.pth", 132863336, 69.02, 88.628, 32)
    DEFAULT = IMAGENET1K_V1


class VGG13_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("vgg13-19584684.pth", 133047848, 69.928, 89.246, 32)
    DEFAULT = IMAGENET1K_V1


class VGG16_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("vgg16-397923af.pth", 138357544, 71.592, 90.382, 32)
    # for detectors (SSD): the classifier in the file is NaN
    IMAGENET1K_FEATURES = _imagenet(
        "vgg16_features-amdegroot-88682ab5.pth", 138357544, None, None, 32, categories=None,
        preprocess={"mean": (0.48235, 0.45882, 0.40784), "std": (1 / 255, 1 / 255, 1 / 255)},
    )  # fmt: skip
    DEFAULT = IMAGENET1K_V1


class VGG19_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("vgg19-dcbb9e9d.pth", 143667240, 72.376, 90.876, 32)
    DEFAULT = IMAGENET1K_V1


class VGG11_BN_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("vgg11_bn-6002323d.pth", 132868840, 70.37, 89.81, 32)
    DEFAULT = IMAGENET1K_V1


class VGG13_BN_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("vgg13_bn-abd245e5.pth", 133053736, 71.586, 90.374, 32)
    DEFAULT = IMAGENET1K_V1


class VGG16_BN_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("vgg16_bn-6c64b313.pth", 138365992, 73.36, 91.516, 32)
    DEFAULT = IMAGENET1K_V1


class VGG19_BN_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("vgg19_bn-c79401a0.pth", 143678248, 74.218, 91.842, 32)
    DEFAULT = IMAGENET1K_V1


class GoogLeNet_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet(
        "googlenet-1378be20.pth", 6624904, 69.778, 89.53, 15, untrained="aux_logits",
        options={"aux_logits": False, "transform_input": True},
    )  # fmt: skip
    DEFAULT = IMAGENET1K_V1


class Inception_V3_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet(
        "inception_v3_google-0cc3c7bd.pth", 27161264, 77.294, 93.45, 75, resize=342, crop=299,
        options={"aux_logits": True, "transform_input": True},
    )  # fmt: skip
    DEFAULT = IMAGENET1K_V1


class ResNet18_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("resnet18-f37072fd.pth", 11689512, 69.758, 89.078, 1)
    DEFAULT = IMAGENET1K_V1


class ResNet34_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("resnet34-b627a593.pth", 21797672, 73.314, 91.42, 1)
    DEFAULT = IMAGENET1K_V1


class ResNet50_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("resnet50-0676ba61.pth", 25557032, 76.13, 92.862, 1)
    IMAGENET1K_V2 = _imagenet("resnet50-11ad3fa6.pth", 25557032, 80.858, 95.434, 1, resize=232)
    DEFAULT = IMAGENET1K_V2


class ResNet101_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("resnet101-63fe2227.pth", 44549160, 77.374, 93.546, 1)
    IMAGENET1K_V2 = _imagenet("resnet101-cd907fc2.pth", 44549160, 81.886, 95.78, 1, resize=232)
    DEFAULT = IMAGENET1K_V2


class ResNet152_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("resnet152-394f9c45.pth", 60192808, 78.312, 94.046, 1)
    IMAGENET1K_V2 = _imagenet("resnet152-f82ba261.pth", 60192808, 82.284, 96.002, 1, resize=232)
    DEFAULT = IMAGENET1K_V2


class ResNeXt50_32X4D_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("resnext50_32x4d-7cdf4587.pth", 25028904, 77.618, 93.698, 1)
    IMAGENET1K_V2 = _imagenet("resnext50_32x4d-1a0047aa.pth", 25028904, 81.198, 95.34, 1, resize=232)
    DEFAULT = IMAGENET1K_V2


class Wide_ResNet50_2_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("wide_resnet50_2-95faca4d.pth", 68883240, 78.468, 94.086, 1)
    IMAGENET1K_V2 = _imagenet("wide_resnet50_2-9ba9bcbe.pth", 68883240, 81.602, 95.758, 1, resize=232)
    DEFAULT = IMAGENET1K_V2


class DenseNet121_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("densenet121-a639ec97.pth", 7978856, 74.434, 91.972, 29)
    DEFAULT = IMAGENET1K_V1


class SqueezeNet1_1_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("squeezenet1_1-b8a52dc0.pth", 1235496, 58.178, 80.624, 17)
    DEFAULT = IMAGENET1K_V1


class MobileNet_V2_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("mobilenet_v2-b0353104.pth", 3504872, 71.878, 90.286, 1)
    IMAGENET1K_V2 = _imagenet("mobilenet_v2-7ebf99e0.pth", 3504872, 72.154, 90.822, 1, resize=232)
    DEFAULT = IMAGENET1K_V2


class MobileNet_V3_Small_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet("mobilenet_v3_small-047dcff4.pth", 2542856, 67.668, 87.402, 1)
    DEFAULT = IMAGENET1K_V1


class EfficientNet_B0_Weights(WeightsEnum):
    IMAGENET1K_V1 = _imagenet(
        "efficientnet_b0_rwightman-7f5810bc.pth", 5288548, 77.692, 93.532, 1,
        preprocess={"interpolation": "bicubic"},
    )  # fmt: skip
    DEFAULT = IMAGENET1K_V1


class FCN_ResNet50_Weights(WeightsEnum):
    COCO_WITH_VOC_LABELS_V1 = Weights(
        SITE + "fcn_resnet50_coco-1167a1af.pth",
        num_classes=21,
        categories=lambda: _VOC_CLASSES,
        preprocess={"resize_size": 520, "crop_size": None},
        options={"aux_loss": True},
        num_params=35322218,
        min_size=(1, 1),
        miou=60.5,
        pixel_acc=91.4,
    )
    DEFAULT = COCO_WITH_VOC_LABELS_V1
