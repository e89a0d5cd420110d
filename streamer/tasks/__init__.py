"""What a model's output means: from logits to the values that go into results. Free of torch."""
