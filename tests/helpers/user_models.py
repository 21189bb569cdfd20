"""Networks as the examples of keras.io write them, small."""

from __future__ import annotations

import keras

L = keras.layers


def u_net() -> keras.Model:
    images = keras.Input((16, 16, 3))
    skip = L.Conv2D(8, 3, padding="same", activation="relu", name="enc1")(images)
    x = L.MaxPooling2D()(skip)
    deep = L.Conv2D(12, 3, padding="same", activation="relu", name="enc2")(x)
    x = L.Conv2D(16, 3, padding="same", activation="relu", name="bottom")(L.MaxPooling2D()(deep))
    x = L.Conv2DTranspose(12, 2, strides=2, name="up2")(x)
    x = L.Concatenate()([x, deep])
    x = L.Conv2D(12, 3, padding="same", activation="relu", name="dec2")(x)
    x = L.Concatenate()([L.Conv2D(8, 2, padding="same", name="up1")(L.UpSampling2D()(x)), skip])
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="dec1")(x)
    return keras.Model(images, L.Conv2D(1, 1, activation="sigmoid", name="pixels")(x), name="u_net")


def inception() -> keras.Model:
    images = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="stem")(images)
    one = L.Conv2D(4, 1, activation="relu", name="one")(x)
    three = L.Conv2D(6, 1, activation="relu", name="three_reduce")(x)
    three = L.Conv2D(8, 3, padding="same", activation="relu", name="three")(three)
    pool = L.MaxPooling2D(3, strides=1, padding="same")(x)
    pool = L.Conv2D(4, 1, activation="relu", name="pool_project")(pool)
    x = L.BatchNormalization(name="bn")(L.Concatenate()([one, three, pool, x]))
    return keras.Model(images, L.Dense(3, activation="softmax", name="classes")(L.Flatten()(x)))


def dense_net() -> keras.Model:
    images = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, padding="same", name="stem")(images)
    for i in range(3):
        y = L.ReLU()(L.BatchNormalization(name=f"bn{i}")(x))
        x = L.Concatenate()([x, L.Conv2D(4, 3, padding="same", use_bias=False, name=f"grow{i}")(y)])
    x = L.AveragePooling2D(2)(L.Conv2D(10, 1, name="transition")(x))
    return keras.Model(images, L.Dense(3, name="classes")(L.GlobalAveragePooling2D()(x)))


def inverted_residual() -> keras.Model:
    images = keras.Input((8, 8, 3))
    x = L.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="stem")(images)
    y = L.Conv2D(24, 1, use_bias=False, name="expand")(L.BatchNormalization()(x))
    y = L.Activation("swish")(L.BatchNormalization()(y))
    y = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(y)
    y = L.Activation("swish")(L.BatchNormalization(name="depthwise_bn")(y))
    gate = L.Reshape((1, 1, 24))(L.GlobalAveragePooling2D()(y))
    gate = L.Conv2D(5, 1, activation="swish", name="squeeze")(gate)
    y = L.multiply([y, L.Conv2D(24, 1, activation="sigmoid", name="excite")(gate)])
    y = L.BatchNormalization()(L.Conv2D(6, 1, use_bias=False, name="project")(y))
    x = L.Add()([x, L.Dropout(0.2)(y)])
    return keras.Model(images, L.Dense(3, name="classes")(L.GlobalAveragePooling2D()(x)))


def siamese() -> keras.Model:
    image = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, activation="relu", name="conv")(image)
    x = L.Dense(10, name="embed")(L.Flatten()(L.MaxPooling2D()(x)))
    tower = keras.Model(image, L.BatchNormalization(name="bn")(x), name="tower")
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    distance = keras.ops.abs(tower(left) - tower(right))
    x = L.Dense(6, activation="relu", name="compare")(distance)
    return keras.Model([left, right], L.Dense(1, activation="sigmoid", name="same")(x))


def detector() -> keras.Model:
    images = keras.Input((16, 16, 3))
    fine = L.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="c3")(images)
    coarse = L.Conv2D(12, 3, strides=2, padding="same", activation="relu", name="c4")(fine)
    top = L.Conv2D(6, 1, name="p4")(coarse)
    levels = [L.Conv2D(6, 1, name="p3")(fine) + L.UpSampling2D()(top), top]
    tower = [keras.Input((None, None, 6)), L.Conv2D(6, 3, padding="same", name="tower"), L.ReLU()]
    tower = keras.Sequential(tower, name="head")
    classes = L.Conv2D(4, 3, padding="same", activation="sigmoid", name="class_of")
    boxes = L.Conv2D(4, 3, padding="same", name="box_of")
    towers = [tower(level) for level in levels]
    rows = [[L.Reshape((-1, 4))(head(t)) for t in towers] for head in (classes, boxes)]
    return keras.Model(
        images, {"classes": L.Concatenate(axis=1)(rows[0]), "boxes": L.Concatenate(axis=1)(rows[1])}
    )


def gated_conv1d() -> keras.Model:
    sound = keras.Input((32, 2))
    x = L.Conv1D(6, 3, padding="causal", name="front")(sound)
    for i in range(2):
        gate = L.Conv1D(8, 2, dilation_rate=2**i, padding="causal", activation="sigmoid", name=f"gate{i}")(x)
        y = L.Conv1D(8, 2, dilation_rate=2**i, padding="causal", activation="tanh", name=f"filter{i}")(x)
        x = x + L.Conv1D(6, 1, name=f"out{i}")(L.Multiply()([y, gate]))
    return keras.Model(sound, L.Dense(3, name="classes")(L.GlobalMaxPooling1D()(L.PReLU(shared_axes=[1])(x))))


def conv3d() -> keras.Model:
    scans = keras.Input((8, 8, 8, 1))
    x = L.MaxPooling3D()(L.Conv3D(8, 3, activation="relu", padding="same", name="conv1")(scans))
    x = L.MaxPooling3D()(L.Conv3D(12, 3, activation="relu", name="conv2")(L.BatchNormalization()(x)))
    x = L.Dense(10, activation="relu", name="hidden")(L.GlobalAveragePooling3D()(x))
    return keras.Model(scans, L.Dense(1, activation="sigmoid", name="risk")(L.Dropout(0.3)(x)))


def digits() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            L.Conv2D(8, 3, activation="relu", name="conv1"),
            L.MaxPooling2D(),
            L.Conv2D(12, 3, activation="relu", name="conv2"),
            L.Flatten(),
            L.Dropout(0.5),
            L.Dense(10, activation="softmax", name="classes"),
        ]
    )


def transfer() -> keras.Model:
    """A frozen backbone that is called with training=False, behind augmentation and scaling."""
    inside = keras.Input((8, 8, 3))
    x = L.BatchNormalization(name="bn")(L.Conv2D(8, 3, name="conv")(inside))
    backbone = keras.Model(inside, L.ReLU()(x), name="backbone")
    backbone.trainable = False
    images = keras.Input((8, 8, 3))
    x = backbone(L.Rescaling(1 / 127.5, -1)(L.RandomFlip(seed=1)(images)), training=False)
    x = L.Dense(6, activation="relu", name="hidden")(L.GlobalAveragePooling2D()(x))
    return keras.Model(images, L.Dense(2, name="classes")(x))


def vision_transformer() -> keras.Model:
    images = keras.Input((8, 8, 3))
    x = L.Reshape((16, 8))(L.Conv2D(8, 2, strides=2, name="patches")(images))
    y = L.LayerNormalization(epsilon=1e-6, name="norm1")(x)
    x = L.Add()([L.MultiHeadAttention(num_heads=2, key_dim=4, name="attention")(y, y), x])
    y = L.Dense(16, activation="gelu", name="mlp1")(L.LayerNormalization(name="norm2")(x))
    x = L.Add()([L.Dense(8, name="mlp2")(L.Dropout(0.1)(y)), x])
    x = L.Dense(12, activation="gelu", name="head")(L.Flatten()(L.LayerNormalization(name="norm3")(x)))
    return keras.Model(images, L.Dense(3, name="classes")(x))


def recurrent() -> keras.Model:
    tokens = keras.Input((10,), dtype="int32")
    x = L.Bidirectional(L.LSTM(6, return_sequences=True), name="lstm")(
        L.Embedding(50, 8, name="words")(tokens)
    )
    x = L.Dense(12, activation="relu", name="hidden")(L.GRU(5, name="gru")(x))
    return keras.Model(tokens, L.Dense(1, activation="sigmoid", name="mood")(x))
