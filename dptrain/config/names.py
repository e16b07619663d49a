"""The names that settings may have as values."""

from typing import Literal

Task = Literal["classification", "multilabel", "regression"]
TaskChoice = Literal["auto", Task]
Scale = Literal["auto", "standard", "minmax", "none"]
Activation = Literal["relu", "tanh", "sigmoid", "gelu", "identity"]
Init = Literal["auto", "he", "glorot"]
Loss = Literal["cross-entropy", "binary-cross-entropy", "mean-squared-error", "huber"]
LossChoice = Literal["auto", Loss]
DType = Literal["float32", "float64"]
ClassWeight = Literal["none", "balanced"]
Rule = Literal["sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "lars", "lamb"]
Schedule = Literal["constant", "step", "cosine", "polynomial", "one-cycle"]
Shuffle = Literal["rows", "blocks"]
Reduction = Literal["tree", "allreduce"]
CpuLevel = Literal["native", "x86-64-v2", "x86-64-v3", "x86-64-v4"]
Part = Literal["train", "validation", "test"]
Over = Literal["steps", "examples", "seconds"]
