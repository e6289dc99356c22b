"""Codebooks: what they choose, how they follow, and that several processes follow together."""

import copy
import socket

import numpy as np
import torch
from torch import distributed, multiprocessing

from plugins.policies.vqbet.codebooks import Codebook, ResidualCodebooks

DECAY = 0.8


def vectors(count=24, width=3):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


def books(count=2):
    torch.manual_seed(0)
    return ResidualCodebooks(count, 4, 3, DECAY)


def test_each_codebook_takes_what_is_nearest_to_the_rest():
    quantized, rest = books()(vectors()), vectors().double().numpy()
    for number, book in enumerate(books()):
        codes = book.codes.double().numpy()
        index = ((rest[:, None] - codes) ** 2).sum(-1).argmin(1)
        np.testing.assert_allclose(quantized.residuals[:, number], rest, atol=1e-6)
        assert np.array_equal(quantized.codes[:, number], index)
        rest = rest - codes[index]
    np.testing.assert_allclose(quantized.vectors, vectors().numpy() - rest, atol=1e-6)
    torch.testing.assert_close(books().look_up(quantized.codes), quantized.vectors)


def test_gradients_pass_once_through_each_codebook():
    x = vectors().requires_grad_()
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    (books()(x).vectors * weights).sum().backward()
    torch.testing.assert_close(x.grad, 2 * weights)


def test_the_distance_pulls_what_is_quantised():
    x = vectors().requires_grad_()
    quantized = books(1)(x)
    quantized.distance.mean().backward()
    torch.testing.assert_close(x.grad, 2 * (x - quantized.vectors).detach() / x.numel())


def test_codes_are_averages_of_what_counts():
    """The formula in float64; the last eight vectors do not count."""
    book, x, counts = next(iter(books())), vectors(), torch.arange(24) < 16
    index = book(x)
    chosen = (np.eye(4)[index.numpy()] * counts[:, None].numpy()).astype(np.float64)
    number = DECAY + (1 - DECAY) * chosen.sum(0)
    sums = DECAY * book.codes.double().numpy() + (1 - DECAY) * chosen.T @ x.double().numpy()
    smooth = (number + 1e-5) / (number.sum() + 4e-5) * number.sum()
    book.follow(x, index, counts)
    np.testing.assert_allclose(book.counts, number, rtol=1e-5)
    np.testing.assert_allclose(book.codes, sums / smooth[:, None], rtol=1e-4, atol=1e-6)


def test_a_code_that_nothing_is_near_stays():
    book = next(iter(books()))
    before = book.codes.clone()
    for _ in range(5):
        book.follow(vectors(), torch.zeros(24, dtype=torch.int64), torch.ones(24, dtype=torch.bool))
    torch.testing.assert_close(book.codes[1:], before[1:], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(book.codes[0], vectors().mean(0), rtol=0.1, atol=0.05)


def test_processes_follow_together():
    alone = next(iter(books()))
    x, counts = vectors(), torch.ones(24, dtype=torch.bool)
    index = alone(x)
    together = copy.deepcopy(alone)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    shares = list(zip(x.chunk(2), index.chunk(2), counts.chunk(2), strict=True))
    results = multiprocessing.get_context("spawn").SimpleQueue()
    spawned = multiprocessing.start_processes(
        follow_share, (address, together, shares, results), nprocs=2, join=False
    )
    received = [results.get() for _ in range(2)]
    while not spawned.join():
        pass
    alone.follow(x, index, counts)
    for codes in received:
        np.testing.assert_allclose(codes, alone.codes.numpy(), rtol=1e-5, atol=1e-6)


def follow_share(rank, address, book: Codebook, shares, results):
    """One of two processes."""
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    book = copy.deepcopy(book)  # the tensors of the one given are shared by both processes
    book.follow(*shares[rank])
    results.put(book.codes.numpy())
    distributed.destroy_process_group()
