//! Steps with their undo: done in order, undone in reverse as soon as one fails. Pure.

/// One step of a plan. `C` is what the steps work on and leave each other.
pub trait Step<C> {
    /// What failed.
    type Error;

    /// Does it. A step that fails leaves nothing behind that its own undo would have to remove.
    ///
    /// # Errors
    /// The plan is then undone.
    fn apply(&self, context: &mut C) -> Result<(), Self::Error>;

    /// Takes it back, after it was done.
    ///
    /// # Errors
    /// Reported beside the others; the steps before it are undone all the same.
    fn undo(&self, context: &mut C) -> Result<(), Self::Error>;
}

/// Does the steps in order. When one fails, the ones before it are undone, and all that went wrong is returned: the
/// failure first, then what could not be undone.
///
/// # Errors
/// One or more.
pub fn run<C, S: Step<C>>(steps: &[S], context: &mut C) -> Result<(), Vec<S::Error>> {
    for (at, step) in steps.iter().enumerate() {
        if let Err(error) = step.apply(context) {
            let mut errors = vec![error];
            errors.extend(undo(&steps[..at], context));
            return Err(errors);
        }
    }
    Ok(())
}

/// Undoes all these steps, the last one first, and returns what could not be undone.
pub fn undo<C, S: Step<C>>(steps: &[S], context: &mut C) -> Vec<S::Error> {
    steps.iter().rev().filter_map(|step| step.undo(context).err()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step that notes what happens to it, and fails where it is told to.
    struct Noted {
        name: char,
        fails: bool,
        undo_fails: bool,
    }

    impl Step<String> for Noted {
        type Error = String;

        fn apply(&self, notes: &mut String) -> Result<(), String> {
            notes.push(self.name);
            if self.fails { Err(format!("do {}", self.name)) } else { Ok(()) }
        }

        fn undo(&self, notes: &mut String) -> Result<(), String> {
            notes.push(self.name.to_ascii_uppercase());
            if self.undo_fails { Err(format!("undo {}", self.name)) } else { Ok(()) }
        }
    }

    fn steps(fails: char, undo_fails: &str) -> Vec<Noted> {
        "abcd"
            .chars()
            .map(|name| Noted { name, fails: name == fails, undo_fails: undo_fails.contains(name) })
            .collect()
    }

    #[test]
    fn a_failure_at_each_step_undoes_those_before_it_in_reverse() {
        for (fails, notes) in [('a', "a"), ('b', "abA"), ('c', "abcBA"), ('d', "abcdCBA"), ('-', "abcd")] {
            let mut seen = String::new();
            let outcome = run(&steps(fails, ""), &mut seen);
            assert_eq!(seen, notes);
            assert_eq!(outcome.err(), (fails != '-').then(|| vec![format!("do {fails}")]));
        }
    }

    #[test]
    fn every_error_of_the_undoing_is_reported_and_stops_nothing() {
        let mut seen = String::new();
        let errors = run(&steps('d', "ac"), &mut seen).unwrap_err();
        assert_eq!(seen, "abcdCBA");
        assert_eq!(errors, ["do d", "undo c", "undo a"]);
    }
}
