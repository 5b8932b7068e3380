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
        let limits = functions
            .iter()
            .map(|f| f.limits)
            .reduce(|a, b| super::Limits { budget: a.budget + b.budget, failures: a.failures.min(b.failures) });
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
        self.links.iter_mut().try_for_each(|(_, link)| link.steer(batch))
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

    /// Each link adopts the old one of its name.
    fn adopt(&mut self, old: &mut dyn Steer) {
        let Some(old) = old.as_any().and_then(|old| old.downcast_mut::<Chain>()) else { return };
        for (name, link) in &mut self.links {
            if let Some((_, old)) = old.links.iter_mut().find(|(n, _)| n == name) {
                link.adopt(old.as_mut());
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
