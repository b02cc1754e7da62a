"""Fine-tuning: a LeNet-5 that knows ten digits gets a new head for five of them, and little data to learn it from.

The convolutions stay as they are, the hidden layers learn slowly, the new head learns fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import handwriting

import fastcnn as fc
from fastcnn import models, nn

CLASSES = (5, 6, 7, 8, 9)


def pretrain(train: fc.Dataset, epochs: int, seed: int) -> nn.Module:
    """LeNet-5 for the ten digits."""
    model = models.lenet5(num_classes=10)
    fc.Trainer(model).fit(train, epochs=epochs, seed=seed, progress=False)
    return model


def finetune(model: nn.Module, train: fc.Dataset, epochs: int, lr: float, seed: int) -> fc.Trainer:
    """Exchange the head and train it; the trainer, to evaluate with."""
    models.replace_head(model, len(CLASSES))
    for body in (model.conv1, model.conv2):
        body.requires_grad_(False)  # no gradient is computed for it, nor for anything before it
    hidden = [*model.fc1.parameters(), *model.fc2.parameters()]
    groups = [{"params": hidden, "lr": lr / 10}, {"params": model.fc3.parameters(), "lr": lr}]
    trainer = fc.Trainer(model, optimizer=fc.optim.Adam(groups))
    trainer.fit(train, epochs=epochs, batch_size=32, seed=seed, progress=False)
    return trainer


def main(argv: Sequence[str] | None = None) -> float:
    """Print and return the accuracy on the test images of the five classes."""
    parser = handwriting.parser(__doc__)
    parser.add_argument("--pretrain-epochs", type=int, default=2, help="on all ten digits")
    parser.add_argument("--epochs", type=int, default=5, help="of fine-tuning")
    parser.add_argument("--per-class", type=int, default=100, help="images of each class to fine-tune on")
    parser.add_argument("--lr", type=float, default=5e-3, help="of the head; the hidden layers take a tenth of it")
    args = parser.parse_args(argv)
    fc.manual_seed(args.seed)
    train, test = handwriting.load(args.data_dir)
    few, test_five = handwriting.subset(train, CLASSES, args.per_class), handwriting.subset(test, CLASSES)

    model = pretrain(train, args.pretrain_epochs if len(train) > 10_000 else 5 * args.pretrain_epochs, args.seed)
    print(f"ten classes: accuracy {fc.Trainer(model).evaluate(test)['accuracy']:.4f}")
    frozen = model.conv1.weight.numpy()
    trainer = finetune(model, few, args.epochs, args.lr, args.seed)
    assert (model.conv1.weight.numpy() == frozen).all()

    accuracy = trainer.evaluate(test_five)["accuracy"]
    print(f"five classes, fine-tuned on {len(few)} images: accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
