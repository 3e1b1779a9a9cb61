"""Series of questions that differ in one thing: length, load, stage, wording, repetition."""
