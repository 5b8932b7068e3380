//! Several functions in order: each may decide or pass on.

use super::{Batch, Failure, Function, FunctionError, Steer, Surroundings};

/// Functions in order. A packet that one has decided is not shown to those behind it (by custom: see
/// [`Batch::each`]); if one fails, the whole batch goes by the built-in policy.
pub struct Chain {
    links: Vec<(String, Box<dyn Steer>)>,
}

impl Chain {
    /// A function that makes a chain of what `functions` make.
    pub fn function(functions: Vec<Function>) -> Function {
        let name = functions.iter().map(Function::name).collect::<Vec<_>>().join(" → ");
        let limits = functions.iter().map(|f| f.limits).reduce(|a, b| super::Limits {
            budget: a.budget.saturating_add(b.budget),
            failures: a.failures.min(b.failures),
        });
        let make = move |surroundings: &Surroundings| -> Result<Box<dyn Steer>, FunctionError> {
            let link = |f: &Function| Ok((f.name().to_owned(), f.instance(surroundings)?));
            let links = functions.iter().map(link).collect::<Result<_, FunctionError>>()?;
            Ok(Box::new(Chain { links }))
        };
        let function = Function::new(&name, make);
        Function { limits: limits.unwrap_or_default(), ..function }
    }
}

impl Steer for Chain {
    #[inline]
    fn steer(&mut self, batch: &mut Batch<'_>) -> Result<(), Failure> {
        self.links.iter_mut().try_for_each(|(_, link)| {
            link.steer(batch)?;
            batch.settle_tags();
            Ok(())
        })
    }

    fn check(&mut self) -> Result<(), String> {
        self.links.iter_mut().try_for_each(|(name, link)| link.check().map_err(|why| format!("{name}: {why}")))
    }

    fn tick(&mut self) {
        self.links.iter_mut().for_each(|(_, link)| link.tick());
    }

    /// `NAME REQUEST` goes to the first link of that name.
    fn control(&mut self, request: &[u8]) -> Result<Vec<u8>, String> {
        let at = request.iter().position(|b| *b == b' ').unwrap_or(request.len());
        let (name, rest) = request.split_at(at);
        let Some((_, link)) = self.links.iter_mut().find(|(n, _)| n.as_bytes() == name) else {
            let names: Vec<&str> = self.links.iter().map(|(n, _)| n.as_str()).collect();
            return Err(format!("begin the request with the name of a function of the chain: {}", names.join(", ")));
        };
        link.control(rest.strip_prefix(b" ").unwrap_or(rest))
    }

    /// Each link adopts the old one of its name; of several with one name, each the one in its order.
    fn adopt(&mut self, old: &mut dyn Steer) {
        let Some(old) = old.as_any().and_then(|old| old.downcast_mut::<Chain>()) else { return };
        let mut left: Vec<_> = old.links.iter_mut().collect();
        for (name, link) in &mut self.links {
            if let Some(at) = left.iter().position(|(n, _)| n == name) {
                link.adopt(left.remove(at).1.as_mut());
            }
        }
    }

    fn as_any(&mut self) -> Option<&mut dyn std::any::Any> {
        Some(self)
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let of = |(name, link): &(String, Box<dyn Steer>)| {
            let name = name.clone();
            link.counters().into_iter().map(move |(counter, n)| (format!("{name}: {counter}"), n)).collect::<Vec<_>>()
        };
        self.links.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::any::Any;
    use std::time::Duration;

    /// Has something that only one can have.
    struct Keeper(u64);

    impl Steer for Keeper {
        fn steer(&mut self, _: &mut Batch<'_>) -> Result<(), Failure> {
            Ok(())
        }
        fn check(&mut self) -> Result<(), String> {
            if self.0 == 13 { Err("unlucky".into()) } else { Ok(()) }
        }
        fn adopt(&mut self, old: &mut dyn Steer) {
            let old = old.as_any().and_then(|old| old.downcast_mut::<Keeper>()).expect("a keeper");
            self.0 = std::mem::take(&mut old.0);
        }
        fn as_any(&mut self) -> Option<&mut dyn Any> {
            Some(self)
        }
        fn counters(&self) -> Vec<(String, u64)> {
            vec![("has".into(), self.0)]
        }
    }

    fn chain(links: &[(&str, u64)]) -> Chain {
        let link = |(name, has): &(&str, u64)| ((*name).to_owned(), Box::new(Keeper(*has)) as Box<dyn Steer>);
        Chain { links: links.iter().map(link).collect() }
    }

    #[test]
    fn links_of_one_name_adopt_in_their_order() {
        let mut old = chain(&[("a", 1), ("b", 2), ("a", 3)]);
        let mut new = chain(&[("b", 0), ("a", 0), ("a", 0), ("a", 9)]);
        new.adopt(&mut old);
        let has: Vec<u64> = new.counters().into_iter().map(|(_, has)| has).collect();
        assert_eq!(has, [2, 1, 3, 9]);
    }

    #[test]
    fn a_link_that_may_take_for_ever_makes_a_chain_that_may() {
        let of = |budget| {
            let limits = crate::function::Limits { budget, failures: 5 };
            Function::new("a", |_| Ok(Box::new(Keeper(1)))).with_limits(limits)
        };
        let chain = Chain::function(vec![of(Duration::MAX), of(Duration::from_millis(10))]);
        assert_eq!(chain.limits.budget, Duration::MAX);
    }

    #[test]
    fn a_chain_is_as_good_as_each_of_its_links() {
        assert_eq!(chain(&[("a", 1), ("b", 2)]).check(), Ok(()));
        assert_eq!(chain(&[("a", 1), ("b", 13)]).check(), Err("b: unlucky".into()));
    }
}
