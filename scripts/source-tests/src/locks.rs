// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Every lock is documented, on its field or on the struct that holds it. Where a struct holds
//! several and their fields have no docs, the struct's names each.
//!
//! A struct that is a lock itself says nothing of this: whoever holds one does.

use proc_macro2::TokenStream;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Expr, Field, Ident, ItemMacro, ItemMod, ItemStatic, ItemStruct, Lit, Meta,
    PathSegment, Token, Type, TypeFnPtr, TypeReference, Visibility, parenthesized,
};

use crate::sources::rust_files;

/// What the docs of all locks in one tree must say.
struct Rule {
    folder: &'static str,
    says: [(&'static str, IsSaid); 3],
}

/// How one sees that something is said.
type IsSaid = fn(&str) -> bool;

const RULES: [Rule; 2] = [
    Rule {
        folder: "guest-driver/src",
        says: [
            ("first of all, what it covers", |doc| {
                !(doc.is_empty() || doc.starts_with("Taken ") || doc.starts_with("Lock order: "))
            }),
            (
                "in which context it is taken: process, hard-IRQ or soft-IRQ context, a timer's function, a work item",
                |doc| {
                    let contexts = [" context", "timer's function", "work item"];
                    contexts.iter().any(|context| doc.contains(context))
                },
            ),
            ("its place in the lock order: \"Lock order: …\"", |doc| {
                doc.contains("Lock order: ")
            }),
        ],
    },
    Rule {
        folder: "vmm/src",
        says: [
            ("what it covers: \"covers …\"", |doc| {
                doc.contains("cover")
            }),
            ("who takes it: \"… takes it\", \"held by …\"", |doc| {
                ["take", "held by"].iter().any(|word| doc.contains(word))
            }),
            ("what is locked inside it: \"inside it\"", |doc| {
                doc.to_lowercase().contains("inside it")
            }),
        ],
    },
];

/// A lock and all docs that are about it.
struct Lock {
    name: String,
    line: usize,
    doc: String,
    /// Whether the docs can be about another lock.
    ambiguous: bool,
}

impl Lock {
    /// What its docs do not say.
    fn unsaid(&self, rule: &Rule) -> Vec<&'static str> {
        let named = !self.ambiguous || self.doc.contains(&format!("`{}`", self.name));
        let unnamed = (!named).then_some("which of the struct's locks they are about");
        let unsaid = rule.says.iter().filter(|(_, says)| !says(&self.doc));
        unsaid.map(|(what, _)| *what).chain(unnamed).collect()
    }
}

fn locks(text: &str) -> Vec<Lock> {
    let mut locks = Locks::default();
    locks.visit_file(&syn::parse_file(text).unwrap());
    locks.0
}

/// Gathers the locks of a file, but for those in its tests.
#[derive(Default)]
struct Locks(Vec<Lock>);

impl<'ast> Visit<'ast> for Locks {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !module.attrs.iter().any(is_for_tests) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        if is_lock(&item.ident) {
            return;
        }
        let locks: Vec<_> = item
            .fields
            .iter()
            .filter(|field| holds_lock(&field.ty))
            .collect();
        for &field in &locks {
            let of_field = doc(&field.attrs);
            self.0.push(Lock {
                name: name(item, field),
                line: field.span().start().line,
                ambiguous: locks.len() > 1 && of_field.is_empty(),
                doc: [of_field, doc(&item.attrs)].join(" ").trim().to_owned(),
            });
        }
    }

    fn visit_item_static(&mut self, item: &'ast ItemStatic) {
        if holds_lock(&item.ty) {
            self.push_static(&item.ident, &item.attrs);
        }
        visit::visit_item_static(self, item);
    }

    fn visit_item_macro(&mut self, item: &'ast ItemMacro) {
        let called = item.mac.path.segments.last();
        if called.is_some_and(|segment| segment.ident == "global_lock") {
            let lock: GlobalLock = item.mac.parse_body().unwrap();
            self.push_static(&lock.name, &lock.attributes);
        }
    }
}

impl Locks {
    fn push_static(&mut self, name: &Ident, attributes: &[Attribute]) {
        self.0.push(Lock {
            name: name.to_string(),
            line: name.span().start().line,
            doc: doc(attributes),
            ambiguous: false,
        });
    }
}

/// The field's name, or the struct's if it has none.
fn name(item: &ItemStruct, field: &Field) -> String {
    field.ident.as_ref().unwrap_or(&item.ident).to_string()
}

/// The kernel's `global_lock!`: docs, visibility, `unsafe(uninit) static NAME`, and what is of no
/// interest here.
struct GlobalLock {
    name: Ident,
    attributes: Vec<Attribute>,
}

impl Parse for GlobalLock {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        input.parse::<Visibility>()?;
        input.parse::<Token![unsafe]>()?;
        let uninit;
        parenthesized!(uninit in input);
        uninit.parse::<Ident>()?;
        input.parse::<Token![static]>()?;
        let name = input.parse()?;
        input.parse::<TokenStream>()?;
        Ok(Self { name, attributes })
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else {
        return false;
    };
    list.path.is_ident("cfg") && list.tokens.to_string() == "test"
}

/// The text of a doc comment, on one line.
fn doc(attributes: &[Attribute]) -> String {
    let line = |attribute: &Attribute| match &attribute.meta {
        Meta::NameValue(doc) if doc.path.is_ident("doc") => match &doc.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(line) => Some(line.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    let lines: Vec<_> = attributes.iter().filter_map(line).collect();
    lines.join(" ")
}

/// Whether this is what a lock is called. A value that is set once needs no place in an order.
fn is_lock(name: &Ident) -> bool {
    let name = name.to_string();
    let is_one = ["Mutex", "Lock", "SpinLockIrq"]
        .iter()
        .any(|lock| name.ends_with(lock));
    is_one && !["OnceLock", "LazyLock"].contains(&name.as_str())
}

/// Whether what is of this type has a lock in it. A reference to a lock is none.
fn holds_lock(of: &Type) -> bool {
    struct Holds(bool);
    impl<'ast> Visit<'ast> for Holds {
        fn visit_path_segment(&mut self, segment: &'ast PathSegment) {
            self.0 |= is_lock(&segment.ident);
            if segment.ident != "PhantomData" {
                visit::visit_path_segment(self, segment);
            }
        }
        fn visit_type_reference(&mut self, _: &'ast TypeReference) {}
        fn visit_type_fn_ptr(&mut self, _: &'ast TypeFnPtr) {}
    }
    let mut holds = Holds(false);
    holds.visit_type(of);
    holds.0
}

#[test]
fn every_lock_says_what_it_covers_who_takes_it_and_its_place_in_the_order() {
    let mut found = Vec::new();
    for rule in &RULES {
        let mut known = 0;
        for source in rust_files(rule.folder) {
            if source.path.ends_with("_test.rs") {
                continue;
            }
            for lock in locks(&source.text) {
                known += 1;
                for unsaid in lock.unsaid(rule) {
                    let Lock { name, line, .. } = &lock;
                    found.push(format!(
                        "{}:{line}: the docs of {name} do not say {unsaid}",
                        source.path
                    ));
                }
            }
        }
        assert!(known > 0, "there are locks in {}", rule.folder);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn locks_are_found_wherever_they_are() {
    for (text, expected) in [
        ("struct Holder { lock: Mutex<u8> }", &["lock"][..]),
        (
            "struct Holder { lock: Arc<std::sync::RwLock<u8>>, other: [SpinLockIrq<u8>; 2] }",
            &["lock", "other"],
        ),
        ("struct Holder(u8, SpinLock<u8>);", &["Holder"]),
        ("fn f() { struct Holder { lock: Mutex<u8> } }", &["lock"]),
        ("static LOCK: Mutex<u8> = Mutex::new(0);", &["LOCK"]),
        (
            "kernel::sync::global_lock! { /// Doc.\n pub(crate) unsafe(uninit) static LOCK: Mutex<u8> = 0; }",
            &["LOCK"],
        ),
        (
            "#[cfg(test)] mod tests { struct Holder { lock: Mutex<u8> } }",
            &[],
        ),
        (
            "struct Borrower<'a> { lock: &'a Mutex<u8>, guard: MutexGuard<'a, u8> }",
            &[],
        ),
        (
            "struct Borrower { lock: fn(Mutex<u8>), of: PhantomData<Mutex<u8>>, once: OnceLock<u8> }",
            &[],
        ),
        (
            "struct Holder { lock: MeasuredLock<u8, MutexBackend> }",
            &["lock"],
        ),
        ("struct MeasuredLock<T> { inner: Lock<T> }", &[]),
    ] {
        let names: Vec<_> = locks(text).into_iter().map(|lock| lock.name).collect();
        assert_eq!(names, expected, "{text}");
    }
}

#[test]
fn what_is_not_said_is_missed() {
    let [driver, vmm] = &RULES;
    let kernel = "struct S {
        /// The list. Taken in process
        /// context.
        ///
        /// Lock order: innermost.
        lock: Mutex<u8> }";
    let both = "/// `one` covers a list; a vCPU takes it, and `two` inside it.
        struct S { one: Mutex<u8>, two: Mutex<u8> }";
    for (rule, text, expected) in [
        (driver, kernel.to_owned(), 0),
        (driver, kernel.replace("The list. ", ""), 1),
        (driver, kernel.replace("context", "peace"), 1),
        (driver, kernel.replace("Lock order: ", "Order: "), 1),
        (driver, "struct S { lock: Mutex<u8> }".to_owned(), 3),
        (vmm, both.to_owned(), 0),
        (vmm, both.replace("`two`", "another"), 1),
        (vmm, both.replace("covers", "is for"), 2),
        (vmm, both.replace("takes", "has"), 2),
        (vmm, both.replace("inside it", "before"), 2),
        (vmm, "static LOCK: Mutex<u8> = 0;".to_owned(), 3),
    ] {
        let unsaid: usize = locks(&text)
            .iter()
            .map(|lock| lock.unsaid(rule).len())
            .sum();
        assert_eq!(unsaid, expected, "{text}");
    }
}
