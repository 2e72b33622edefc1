"""One update: forward, loss, backward, checks, optimizer. Only this folder divides a loss and
changes a weight.

formulas.py      the formulas of an update, shared by one model and a stack of models
update.py        what every kind of update shares, in the order in which it happens
finite_check.py  whether a NaN or infinity is anywhere, and where
gradients.py     the backward pass and the length of the gradient
supervised.py    one model, one loss
adversarial.py   a generator against a discriminator
"""

from danlu.training.step.adversarial import AdversarialStep
from danlu.training.step.finite_check import NonFiniteError
from danlu.training.step.gradients import backward, grad_norm
from danlu.training.step.supervised import SupervisedStep
from danlu.training.step.update import Update

Step = SupervisedStep | AdversarialStep

__all__ = [
    "AdversarialStep",
    "NonFiniteError",
    "Step",
    "SupervisedStep",
    "Update",
    "backward",
    "grad_norm",
]
