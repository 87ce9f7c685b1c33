//! Function names short enough for a row: template arguments fold to `<…>`.

/// `std::vector<int, std::allocator<int>>::push_back` reads as `std::vector<…>::push_back`.
///
/// `<T as Trait>::f` of Rust keeps its outer brackets' text. A name whose
/// brackets do not match, or that names an operator, stays as it is.
pub(crate) fn short(name: &str) -> String {
    if !name.contains('<') || name.contains("operator") {
        return name.to_owned();
    }
    let mut out = String::with_capacity(name.len());
    // For each open bracket: are the characters inside kept?
    let mut open: Vec<bool> = Vec::new();
    let mut previous = ' ';
    for c in name.chars() {
        let shown = open.iter().all(|kept| *kept);
        match c {
            '<' => {
                let kept = shown && (out.is_empty() || previous == ' ');
                if shown {
                    out.push_str(if kept { "<" } else { "<…" });
                }
                open.push(kept);
            }
            '>' if previous != '-' => {
                if open.pop().is_none() {
                    return name.to_owned();
                }
                if open.iter().all(|kept| *kept) {
                    out.push('>');
                }
            }
            _ if shown => out.push(c),
            _ => {}
        }
        previous = c;
    }
    if open.is_empty() {
        out
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    // Goal: shorter, never misleading. Method: names of C, C++ and Rust, and broken ones.
    #[test]
    fn template_arguments_fold() {
        for (name, expected) in [
            ("main", "main"),
            (
                "std::vector<int, std::allocator<int>>::push_back",
                "std::vector<…>::push_back",
            ),
            (
                "<alloc::vec::Vec<T> as core::ops::Drop>::drop",
                "<alloc::vec::Vec<…> as core::ops::Drop>::drop",
            ),
            ("call<fn() -> u8>::once", "call<…>::once"),
            ("operator<<", "operator<<"),
            ("a<b", "a<b"),
            ("a>b", "a>b"),
            ("evil<script>x", "evil<…>x"),
        ] {
            assert_eq!(short(name), expected);
        }
    }
}
