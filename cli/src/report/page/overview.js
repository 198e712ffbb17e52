// The model, its targets, what it takes in memory.

function overview() {
  const { plan, memory } = view.target;
  const tile = (value, text) => el('div', { class: 'tile' }, el('b', {}, value), el('span', {}, text));
  const model = plan.model;
  const atContext = (context) => evaluate(plan.segments.state, contextSymbols(plan, context));
  const perToken = (atContext(memory.context) - atContext(1)) / Math.max(memory.context - 1, 1);
  const tiles = [
    tile(bytes(memory.constants), plan.synthetic
      ? `weights, synthetic (seed ${plan.synthetic.seed})` : 'packed weights'),
    tile(bytes(model.weight_bytes_per_token), 'of weights read per token'),
    tile(bytes(Math.round(perToken)), 'KV cache per position'),
    tile(bytes(memory.arena), `activations, ${memory.arena_ratio.toFixed(2)} × the lower bound`),
    tile(integer(plan.kernels.length), `kernels; ${plan.programs.map((program) =>
      `${program.name} ${program.launches.length}`).join(', ')} launches`),
  ];
  if (plan.machine) {
    const step = (role) => stepOf(plan, plan.programs[plan.decode_loop[role]]).time;
    const decode = step('decode');
    tiles.push(
      tile(seconds(step('prefill')), `prefill of ${plural(view.tokens, 'token')}, predicted`),
      tile(seconds(decode), `a decode step (${round(1 / decode)} tokens/s), predicted`));
  }
  return [
    el('div', { class: 'tiles' }, tiles),
    plan.machine && el('p', { class: 'note', style: 'margin-top:.5rem' },
      'Predicted by the roofline of the maker’s figures, KV cache as chosen above: a lower bound, nothing was measured.'),
    el('div', { class: 'columns' },
      el('div', {}, el('h3', {}, 'Model and target'), modelFacts(plan)),
      el('div', {}, el('h3', {}, 'Memory by context length'), contextTable())),
    el('h3', {}, 'Sections of the file'), sectionTable(),
  ];
}

function contextSymbols(plan, context) {
  const values = plan.symbols.map((symbol) => symbol.max);
  values[plan.decode_loop.context] = context;
  return values;
}

function modelFacts(plan) {
  const model = plan.model;
  const facts = [
    ['model', model.name],
    ['vocabulary', integer(model.vocab)],
    ['context', `up to ${integer(model.max_context)}`],
    ['prefill chunk', plural(model.prefill_chunk, 'token')],
    ['stop tokens', model.stop_tokens.join(', ') || 'none'],
    ['target', view.target.target],
    ['requires', view.target.requires.join(' ') || 'nothing'],
    ['hardware', plan.machine
      ? `${scaled(plan.machine.bandwidth, 'B/s')}, ${scaled(plan.machine.matrix_rate, 'op/s')} in matrices`
      : 'not described: no predictions'],
    ['symbols', plan.symbols.map((s) => `${s.name} in ${s.min}..=${s.max}`).join(', ')],
    ['artifact', `${report.file}, format ${report.format}, by ${report.compiler}`],
  ];
  return el('dl', { class: 'facts' }, facts.map(([name, value]) => [el('dt', {}, name), el('dd', {}, value)]));
}

function contextTable() {
  const { plan, memory, contexts } = view.target;
  const most = Math.max(...contexts.map((row) => row.total));
  const cells = (context, state, total) => [
    integer(context), bytes(state), bytes(total),
    el('td', { style: 'width:34%', tip: `weights ${bytes(memory.constants)}\nactivations ${bytes(memory.arena)}\nKV cache ${bytes(state)}` },
      stack([memory.constants, memory.arena, state], most)),
  ];
  const rows = contexts.map((row) => cells(row.context, row.state, row.total));
  const chosen = el('tr', {});
  const largest = memory.context;
  const slider = el('input', {
    type: 'range', min: 0, max: Math.log2(largest), step: 0.01, value: Math.log2(largest) - 1,
    'aria-label': 'Context length', oninput: () => choose(),
  });
  const choose = () => {
    const context = Math.min(Math.max(Math.round(2 ** Number(slider.value)), 1), largest);
    const symbols = contextSymbols(plan, context);
    const [state, io] = ['state', 'io'].map((name) => evaluate(plan.segments[name], symbols));
    const total = memory.constants + memory.arena + state + io + memory.scratch_per_worker;
    const [first, ...rest] = cells(context, state, total);
    chosen.replaceChildren(el('th', { scope: 'row', class: 'n' }, first),
      ...rest.slice(0, 2).map((cell) => el('td', { class: 'n' }, cell)), rest[2]);
    slider.setAttribute('aria-valuetext', `${context} positions: ${bytes(total)}`);
  };
  choose();
  const right = rows.map(([first, ...rest]) => [el('th', { scope: 'row', class: 'n' }, first), ...rest]);
  const element = table(['>context', '>KV cache', '>all memory', ''], right);
  element.tBodies[0].append(chosen);
  chosen.className = 'screen open';
  return el('div', {}, el('div', { class: 'panel wide' }, element),
    el('p', { class: 'screen note', style: 'margin-top:.5rem' },
      el('label', {}, 'any length ', slider)),
    el('p', { class: 'legend' }, el('span', {}, dot('var(--k0)'), 'weights'),
      el('span', {}, dot('var(--k1)'), 'activations'), el('span', {}, dot('var(--k2)'), 'KV cache')));
}

/** Parts of a whole as one bar. */
function stack(parts, whole) {
  const spans = parts.map((part, at) => el('span', {
    class: 'bar', style: `width:${(100 * part / whole).toFixed(2)}%;background:var(--k${at});border-radius:0;min-width:0`,
  }));
  return el('span', { class: 'track', style: 'display:flex;background:none' }, spans);
}

function sectionTable() {
  const weights = report.sections.filter((section) => section.name.startsWith('weights.'));
  const others = report.sections.filter((section) => !section.name.startsWith('weights.'));
  const rows = others.map((section) => [el('code', {}, section.name), integer(section.offset), bytes(section.bytes),
    percent(section.bytes, report.file_bytes)]);
  if (weights.length) {
    const total = sum(weights.map((section) => section.bytes));
    rows.push([plural(weights.length, 'weight'), integer(weights[0].offset), bytes(total),
      percent(total, report.file_bytes)]);
  }
  return el('div', { class: 'panel wide' }, table(['name', '>offset', '>size', '>of the file'], rows));
}
