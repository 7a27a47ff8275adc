//! Tests of the speaker.
