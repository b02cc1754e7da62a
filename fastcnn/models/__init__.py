"""Ready-made networks: torchvision's names, constructor arguments and state-dict keys where it has them."""

from fastcnn.models.alexnet import AlexNet, AlexNet2012, alexnet, alexnet_2012
from fastcnn.models.anchors import DefaultBoxGenerator
from fastcnn.models.api import get_model, get_model_builder, get_model_weights, get_weight, list_models
from fastcnn.models.densenet import DenseNet, densenet121
from fastcnn.models.efficientnet import EfficientNet, efficientnet_b0
from fastcnn.models.features import SSDFeatureExtractor
from fastcnn.models.finetune import replace_head
from fastcnn.models.googlenet import GoogLeNet, googlenet
from fastcnn.models.inception import Inception3, inception_v3
from fastcnn.models.lenet import KerasCNN, LeNet5, keras_cnn, lenet5
from fastcnn.models.lenet1998 import LeNet5of1998, lenet5_1998
from fastcnn.models.mlp import MLP, Highway, highway, mlp, perceptron
from fastcnn.models.mobilenet import MobileNetV2, MobileNetV3Small, mobilenet_v2, mobilenet_v3_small
from fastcnn.models.resnet import (
    CifarResNet,
    ResNet,
    cifar_resnet20,
    cifar_resnet56,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    wide_resnet50_2,
)
from fastcnn.models.segmentation import FCN, UNet, fcn_resnet50, unet
from fastcnn.models.squeezenet import SqueezeNet, squeezenet1_1
from fastcnn.models.ssd import SSD, ssd300_vgg16
from fastcnn.models.vgg import VGG, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from fastcnn.models.weights import Weights, WeightsEnum
from fastcnn.models.weights_table import (
    AlexNet_Weights,
    DenseNet121_Weights,
    EfficientNet_B0_Weights,
    FCN_ResNet50_Weights,
    GoogLeNet_Weights,
    Inception_V3_Weights,
    MobileNet_V2_Weights,
    MobileNet_V3_Small_Weights,
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    ResNet101_Weights,
    ResNet152_Weights,
    ResNeXt50_32X4D_Weights,
    SqueezeNet1_1_Weights,
    VGG11_BN_Weights,
    VGG11_Weights,
    VGG13_BN_Weights,
    VGG13_Weights,
    VGG16_BN_Weights,
    VGG16_Weights,
    VGG19_BN_Weights,
    VGG19_Weights,
    Wide_ResNet50_2_Weights,
)

# (channels, height, width) of an image, for the models made for another size than ImageNet's
_SHAPES = {
    **dict.fromkeys(["lenet5", "keras_cnn", "highway"], (1, 28, 28)),
    **dict.fromkeys(["cifar_resnet20", "cifar_resnet56"], (3, 32, 32)),
    **dict.fromkeys(["mlp", "perceptron"], (2,)),
    "alexnet_2012": (3, 227, 227),
    "inception_v3": (3, 299, 299),
    "lenet5_1998": (1, 32, 32),
    "ssd300_vgg16": (3, 300, 300),
    "unet": (1, 256, 256),
}


def input_shape(name: str) -> tuple[int, ...]:
    """The shape of one item that the model of this name was made for: (3, 224, 224) for most."""
    return _SHAPES.get(name, (3, 224, 224))


__all__ = [
    "AlexNet",
    "AlexNet2012",
    "AlexNet_Weights",
    "CifarResNet",
    "DefaultBoxGenerator",
    "DenseNet",
    "DenseNet121_Weights",
    "EfficientNet",
    "EfficientNet_B0_Weights",
    "FCN",
    "FCN_ResNet50_Weights",
    "GoogLeNet",
    "GoogLeNet_Weights",
    "Highway",
    "Inception3",
    "Inception_V3_Weights",
    "KerasCNN",
    "LeNet5",
    "LeNet5of1998",
    "MLP",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNet_V2_Weights",
    "MobileNet_V3_Small_Weights",
    "ResNeXt50_32X4D_Weights",
    "ResNet",
    "ResNet101_Weights",
    "ResNet152_Weights",
    "ResNet18_Weights",
    "ResNet34_Weights",
    "ResNet50_Weights",
    "SSD",
    "SSDFeatureExtractor",
    "SqueezeNet",
    "SqueezeNet1_1_Weights",
    "UNet",
    "VGG",
    "VGG11_BN_Weights",
    "VGG11_Weights",
    "VGG13_BN_Weights",
    "VGG13_Weights",
    "VGG16_BN_Weights",
    "VGG16_Weights",
    "VGG19_BN_Weights",
    "VGG19_Weights",
    "Weights",
    "WeightsEnum",
    "Wide_ResNet50_2_Weights",
    "alexnet",
    "alexnet_2012",
    "cifar_resnet20",
    "cifar_resnet56",
    "densenet121",
    "efficientnet_b0",
    "fcn_resnet50",
    "get_model",
    "get_model_builder",
    "get_model_weights",
    "get_weight",
    "googlenet",
    "highway",
    "inception_v3",
    "input_shape",
    "keras_cnn",
    "lenet5",
    "lenet5_1998",
    "list_models",
    "mlp",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "perceptron",
    "replace_head",
    "resnet101",
    "resnet152",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext50_32x4d",
    "squeezenet1_1",
    "ssd300_vgg16",
    "unet",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "wide_resnet50_2",
]
