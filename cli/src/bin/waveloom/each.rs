//! `--verify-each`: every pass checked as it runs.

use waveloom_cli::args::CheckArgs;
use waveloom_ir::Module;
use waveloom_passes::{MemoryPlan, PassError, PassEvent, Schedule};
use waveloom_verify::passes::{judge, memory, same_schedule};

/// Seed of the inputs.
const SEED: u64 = 0;

/// Checks what passes made, where that is asked for.
pub struct PassCheck {
    wanted: bool,
}

impl PassCheck {
    /// As the command line says.
    pub fn new(args: &CheckArgs) -> PassCheck {
        PassCheck { wanted: args.verify_each }
    }

    /// After a pass.
    pub fn pass(&mut self, event: &PassEvent<'_>) -> Result<(), PassError> {
        if !self.wanted {
            return Ok(());
        }
        let wrong = |finding: waveloom_verify::passes::Finding| PassError::Wrong {
            pass: event.pass.name,
            problem: finding.to_string(),
        };
        judge(event, SEED).map_err(wrong)
    }

    /// After scheduling and memory planning.
    pub fn scheduled(
        &mut self,
        module: &Module,
        schedule: &Schedule,
        plan: &MemoryPlan,
    ) -> Result<(), PassError> {
        if !self.wanted {
            return Ok(());
        }
        for (pass, result) in [
            ("schedule", same_schedule(module, schedule)),
            ("plan-memory", memory(module, schedule, plan)),
        ] {
            result.map_err(|finding| PassError::Wrong { pass, problem: finding.to_string() })?;
        }
        Ok(())
    }
}
