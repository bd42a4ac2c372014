//! The entries.

use crate::{Architecture, Block, HubFile, Model, PaddingRule, Weights};

/// ImageNet's mean and standard deviation, R, G, B.
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
/// `[0, 1]` to `[-1, 1]`.
const SYMMETRIC: ([f32; 3], [f32; 3]) = ([0.5; 3], [0.5; 3]);

const fn model(
    name: &'static str,
    architecture: Architecture,
    (mean, std): ([f32; 3], [f32; 3]),
    weights: Option<Weights>,
) -> Model {
    Model { name, architecture, mean, std, weights }
}

/// A file that has to be given, known by its hash.
const fn file(sha256: &'static str, origin: &'static str) -> Option<Weights> {
    Some(Weights { sha256: Some(sha256), hub: None, licence: "Apache-2.0", origin })
}

/// Torchvision's first ImageNet weights (V1), as timm publishes them on the hub.
const fn torchvision(name: &'static str, repository: &'static str, blocks: [usize; 4], block: Block) -> Model {
    let weights = Weights {
        sha256: None,
        hub: Some(HubFile { repository, revision: "main", path: "model.safetensors" }),
        licence: "BSD-3-Clause",
        origin: "torchvision, IMAGENET1K_V1: trained on ImageNet-1k classification at 224x224",
    };
    model(name, Architecture::ResNet { blocks, block }, IMAGENET, Some(weights))
}

/// DINOv2's networks as timm publishes them on the hub.
const fn dinov2(name: &'static str, repository: &'static str, width: usize, registers: usize) -> Model {
    let weights = Weights {
        sha256: None,
        hub: Some(HubFile { repository, revision: "main", path: "model.safetensors" }),
        licence: "Apache-2.0",
        origin: "Meta AI, DINOv2: trained without labels on LVD-142M, distilled from ViT-g/14",
    };
    model(name, Architecture::DinoV2 { width, registers }, IMAGENET, Some(weights))
}

/// All models.
pub const MODELS: &[Model] = &[
    model("scattering", Architecture::Scattering, SYMMETRIC, None),
    model(
        "masf-nano",
        Architecture::Nano,
        IMAGENET,
        Some(Weights {
            sha256: Some("4360778ddaef32696814228f7faf3ae66fb76d2682470d5db170526fa6b88050"),
            hub: None,
            licence: "MIT OR Apache-2.0",
            origin: "this project: trained from scratch on procedural images, distilled from resnet50-v2 and mobilenet-v2",
        }),
    ),
    model(
        "mobilenet-v2",
        Architecture::MobileNetV2 { padding: PaddingRule::Symmetric },
        IMAGENET,
        file(
            "6f7e620753b903631a816f1d3b0bfe3f7fb52bb4f3ab7bf9dd0e7bf6dc909692",
            "mobilenetv2-7 of the ONNX model zoo, ImageNet-1k; batch norm folded, without classifier",
        ),
    ),
    model(
        "mobilenet-v2-tf",
        Architecture::MobileNetV2 { padding: PaddingRule::Same },
        SYMMETRIC,
        file(
            "9431e801a1e79e4bcddfa92a55fb543c0549e5bcbb43f3dfbc3121b037efbbb8",
            "TensorFlow 2, ImageNet-1k, quantised to 8 bits after training, as published by Coral; dequantised to f32",
        ),
    ),
    model(
        "resnet50-v2",
        Architecture::ResNet50V2,
        IMAGENET,
        file(
            "495a178d761b5284e710a2d1093257b3b03a16c5018e0c004b480f807a998d76",
            "resnet50-v2-7 of the ONNX model zoo (GluonCV), ImageNet-1k; stages 1-3, batch norm folded, convolutions in f16",
        ),
    ),
    torchvision("resnet18", "timm/resnet18.tv_in1k", [2, 2, 2, 2], Block::Basic),
    torchvision("resnet34", "timm/resnet34.tv_in1k", [3, 4, 6, 3], Block::Basic),
    torchvision("resnet50", "timm/resnet50.tv_in1k", [3, 4, 6, 3], Block::Bottleneck { width: 64 }),
    torchvision("resnet101", "timm/resnet101.tv_in1k", [3, 4, 23, 3], Block::Bottleneck { width: 64 }),
    torchvision("wide-resnet50-2", "timm/wide_resnet50_2.tv_in1k", [3, 4, 6, 3], Block::Bottleneck { width: 128 }),
    torchvision("wide-resnet101-2", "timm/wide_resnet101_2.tv_in1k", [3, 4, 23, 3], Block::Bottleneck { width: 128 }),
    dinov2("dinov2-vits14", "timm/vit_small_patch14_dinov2.lvd142m", 384, 0),
    dinov2("dinov2-vitb14", "timm/vit_base_patch14_dinov2.lvd142m", 768, 0),
    dinov2("dinov2-vits14-reg4", "timm/vit_small_patch14_reg4_dinov2.lvd142m", 384, 4),
    dinov2("dinov2-vitb14-reg4", "timm/vit_base_patch14_reg4_dinov2.lvd142m", 768, 4),
];
