//! The frame that tells one site from another: the first beyond allocation wrappers.
//!
//! The leaf of most stacks is a program's own wrapper (`xmalloc`, `zmalloc`,
//! `g_malloc`), so lists of leaves all look alike. Rows and summaries show the
//! first frame that is no wrapper, "via" the leaf; stacks stay whole. What is a
//! wrapper is told by its name alone, from the short list in [`is_wrapper`]: a
//! name too many costs a headline one frame further out, never a number.

use crate::books::report::Frame;
use crate::web::{names, words};

/// Parts of a name, in lower case, that make a function a wrapper.
const PARTS: [&str; 9] = [
    "malloc",
    "calloc",
    "realloc",
    "memalign",
    "strdup",
    "strndup",
    "_m_allocate",
    "_m_create",
    "operator new",
];
/// Beginnings of such names: libraries that allocate for others.
const STARTS: [&str; 7] = [
    "__gnu_cxx::",
    "alloc::",
    "<alloc::",
    "__rust_alloc",
    "__rdl_alloc",
    "__rg_alloc",
    "pymem_",
];

/// What a row shows of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Headline<'a> {
    /// The frame that asked.
    pub(crate) frame: &'a Frame,
    /// Where it is in the stack.
    pub(crate) index: usize,
    /// The wrapper it asked, unless it asked itself.
    pub(crate) via: Option<String>,
}

/// The headline of a stack, leaf first; `None` of an empty one. A stack of
/// nothing but wrappers has its leaf.
pub(crate) fn of(stack: &[Frame]) -> Option<Headline<'_>> {
    let leaf = stack.first()?;
    let index = stack
        .iter()
        .position(|frame| !is_wrapper(&frame.function))
        .unwrap_or(0);
    Some(Headline {
        frame: &stack[index],
        index,
        via: (index > 0).then(|| names::short(&words::clean(&leaf.function))),
    })
}

fn is_wrapper(function: &str) -> bool {
    // Template arguments do not count: `serve<std::allocator<int>>` is no allocator.
    let name = names::short(function).to_lowercase();
    let of_std = name.starts_with("std::") && name.contains("alloc");
    of_std
        || PARTS.iter().any(|part| name.contains(part))
        || STARTS.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &[&str]) -> Vec<Frame> {
        let frame = |name: &&str| Frame {
            function: (*name).to_owned(),
            ..Frame::default()
        };
        names.iter().map(frame).collect()
    }

    fn told(names: &[&str]) -> (String, Option<String>) {
        let stack = stack(names);
        let headline = of(&stack).expect("not empty");
        (headline.frame.function.clone(), headline.via)
    }

    // Goal: the first frame beyond wrappers is shown, "via" the leaf. Method: stacks as programs have them.
    #[test]
    fn wrappers_are_passed_over() {
        for (names, shown, via) in [
            (&["node_new", "main"][..], "node_new", None),
            (
                &["xmalloc", "make_word", "main"],
                "make_word",
                Some("xmalloc"),
            ),
            (
                &["Perl_safesysmalloc", "Perl_newHV"],
                "Perl_newHV",
                Some("Perl_safesysmalloc"),
            ),
            (
                &["os::malloc", "os::realloc", "Arena::grow"],
                "Arena::grow",
                Some("os::malloc"),
            ),
            (
                &[
                    "std::__new_allocator<int>::allocate",
                    "std::_Vector_base<int, std::allocator<int>>::_M_allocate",
                    "std::vector<int, std::allocator<int>>::_M_realloc_insert<int>",
                    "zoo::feed<std::allocator<int>>",
                ],
                "zoo::feed<std::allocator<int>>",
                Some("std::__new_allocator<…>::allocate"),
            ),
            (
                &["__rust_alloc", "alloc::vec::Vec<T>::push", "zoo::main"],
                "zoo::main",
                Some("__rust_alloc"),
            ),
            (&["zmalloc", "zcalloc"], "zmalloc", None),
            (&["deallocate_all", "main"], "deallocate_all", None),
        ] {
            assert_eq!(told(names), (shown.to_owned(), via.map(str::to_owned)));
        }
        assert_eq!(of(&[]), None);
    }
}
