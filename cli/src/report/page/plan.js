// What follows from a plan for chosen values of its symbols.

const report = JSON.parse(byId('report').textContent);

/** What is looked at: a target, tokens of a prefill step, length of the KV cache. */
const view = { target: null, tokens: 0, cache: 0 };

const kindOf = (name) => name.split('_')[0];

function evaluate(expr, symbols) {
  if ('const' in expr) return expr.const;
  if ('symbol' in expr) return symbols[expr.symbol];
  const apply = {
    add: (a, b) => a + b, mul: (a, b) => a * b, ceil_div: (a, b) => Math.ceil(a / b),
  };
  const [[name, [a, b]]] = Object.entries(expr);
  return apply[name](evaluate(a, symbols), evaluate(b, symbols));
}

/** As `inspect --plan` spells it. */
function spell(expr, symbols) {
  if ('const' in expr) return String(expr.const);
  if ('symbol' in expr) return symbols[expr.symbol].name;
  const factor = (e) => 'add' in e ? `(${spell(e, symbols)})` : spell(e, symbols);
  if (expr.add) return expr.add.map((e) => spell(e, symbols)).join(' + ');
  if (expr.mul) return expr.mul.map(factor).join('*');
  return `ceil_div(${expr.ceil_div.map((e) => spell(e, symbols)).join(', ')})`;
}

const programNamed = (plan, role) => plan.programs[plan.decode_loop[role]].name;

/** Values of the symbols in a step of `program`: a prefill step has as many tokens as chosen. */
function symbolsOf(plan, program) {
  const loop = plan.decode_loop;
  const values = plan.symbols.map((symbol) => symbol.max);
  const tokens = program === programNamed(plan, 'prefill') ? view.tokens : 1;
  values[loop.step_tokens] = tokens;
  values[loop.cache_length] = Math.max(tokens, view.cache);
  return values;
}

/** Bytes, operations and, by the roofline, seconds of a launch of a kernel; null without them. */
function workOf(plan, kernel, program) {
  const work = plan.kernels[kernel].work;
  if (!work) return null;
  const symbols = symbolsOf(plan, program);
  const moved = evaluate(work.bytes, symbols);
  const operations = evaluate(work.operations, symbols);
  const machine = plan.machine;
  const time = machine
    ? Math.max(moved / machine.bandwidth, operations / machine.matrix_rate) : null;
  return { moved, operations, time };
}

/** What a step of a program takes at least. */
function stepOf(plan, program) {
  const launches = program.launches.map((launch) => workOf(plan, launch.kernel, program.name));
  return {
    moved: sum(launches.map((work) => work ? work.moved : 0)),
    time: sum(launches.map((work) => work && work.time || 0)),
  };
}

/** A color for each kind of kernel: those that take the most time come first. */
function kindColors(plan) {
  const weight = new Map();
  plan.programs.forEach((program) => program.launches.forEach((launch) => {
    const kind = kindOf(plan.kernels[launch.kernel].name);
    const work = workOf(plan, launch.kernel, program.name);
    weight.set(kind, (weight.get(kind) || 0) + (work ? work.moved : 1));
  }));
  const kinds = [...weight.keys()].sort((a, b) => weight.get(b) - weight.get(a));
  return new Map(kinds.map((kind, at) => [kind, `var(--k${Math.min(at, 7)})`]));
}

/** What belongs to each color. */
function kindLegend(colors, kinds) {
  return el('p', { class: 'legend' }, [...colors].filter(([kind]) => !kinds || kinds.has(kind))
    .map(([kind, color]) => el('span', {}, dot(color), kind)));
}

const dot = (color) => el('span', { class: 'dot', style: `background:${color}` });

const colorOf = (kernel) => view.colors.get(kindOf(kernel.name));
