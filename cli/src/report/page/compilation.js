// How the artifact was made: time, rewrites, and the graph after each pass.

function compilationSection() {
  const { phases, passes, seconds: whole } = report.compilation;
  const phaseRows = phases.map((phase) => [phase.name, seconds(phase.seconds), percent(phase.seconds, whole), bar(phase.seconds / whole)]);
  const own = passes.filter((pass) => pass.target === view.target.target);
  const passRows = own.map((pass) => [
    el('th', { scope: 'row', title: pass.summary }, pass.name), seconds(pass.seconds), integer(sum(Object.values(pass.rewrites))), el('span', { class: 'note' }, pass.summary),
  ]);
  return [
    el('p', { class: 'note' }, `${seconds(whole)} in all. Phases are those of all targets together, passes those for ${view.target.target}.`),
    el('div', { class: 'columns' },
      el('div', {}, el('h3', {}, 'Time by phase'), el('div', { class: 'panel wide' }, table(['phase', '>time', '>share', ''], phaseRows)),
        el('h3', {}, 'Passes'), el('div', { class: 'panel wide' }, table(['pass', '>time', '>rewrites', 'what for'], passRows))),
      el('div', {}, el('h3', {}, 'Rewrites by rule'), el('div', { class: 'panel scroll' }, rewriteTable(own)))),
  ];
}

function rewriteTable(passes) {
  const rows = passes.flatMap((pass) => Object.entries(pass.rewrites).map(([rule, count]) => ({ pass: pass.name, rule, count })));
  const most = Math.max(...rows.map((row) => row.count), 1);
  rows.sort((a, b) => b.count - a.count);
  const cells = rows.map((row) => [el('th', { scope: 'row' }, el('code', {}, row.rule)), row.pass, integer(row.count), bar(row.count / most)]);
  const element = table(['rule', 'pass', '>applied', ''], cells);
  element.id = 'rewrite-table';
  return element;
}

// ---------------------------------------------------------------- the graph

const graphState = { target: null, name: null, left: 0, right: -1 };

function graphSection() {
  const { stages, functions } = report.compilation;
  const own = stages.filter((stage) => !stage.target || stage.target === view.target.target);
  const names = [...new Set(own.flatMap((stage) => stage.functions.map((at) => functions[at].name)))];
  if (graphState.target !== view.target.target || !names.includes(graphState.name)) {
    const name = names.find((name) => name === 'layer') || names[0];
    Object.assign(graphState, { target: view.target.target, name, left: 0, right: own.length - 1 });
  }
  const place = el('div', {});
  const draw = () => place.replaceChildren(...graphPanes(own, draw));
  draw();
  const choose = tabs('Function', names.map((name) => `@${name}`), `@${graphState.name}`, (name) => {
    graphState.name = name.slice(1);
    draw();
  });
  graphState.redraw = () => {
    choose.querySelectorAll('button').forEach((button) => {
      button.setAttribute('aria-pressed', String(button.textContent === `@${graphState.name}`));
    });
    draw();
  };
  return [
    el('p', { class: 'note' },
      'Two points of the compilation side by side. Instructions of one color end up in one instruction of the last pass: '
      + 'choose one to see what it came from, or where it went. Weights, constants and parameters with a single reader are lines of that reader.'),
    choose, place,
  ];
}

/** The function of this name after the last pass for the target. */
function lastFunction(name) {
  const { stages, functions } = report.compilation;
  const own = stages.filter((stage) => !stage.target || stage.target === view.target.target);
  return own[own.length - 1].functions.map((at) => functions[at]).find((fn) => fn.name === name);
}

/** An instruction that a kernel computes, by its op. */
function opName({ function: name, inst }) {
  const fn = lastFunction(name);
  return fn && fn.insts[inst] ? `${inst} ${fn.insts[inst].op}` : String(inst);
}

/** Chooses an instruction after the last pass in the graph, and goes there. */
function showInGraph({ function: name, inst }) {
  const stages = report.compilation.stages.filter((stage) => !stage.target || stage.target === view.target.target);
  Object.assign(graphState, { target: view.target.target, name, left: 0, right: stages.length - 1, pick: inst });
  graphState.redraw();
  byId('graph').scrollIntoView({ block: 'start' });
}

/** Who, in the function after the last pass, an imported instruction belongs to. */
function ownersOf(stages) {
  const last = functionIn(stages[stages.length - 1]);
  const owners = new Map();
  if (last) {
    const parts = last.insts.map((inst, at) => ({ at, inst })).filter(({ inst }) => inst.operands.length > 0 || inst.origins.length > 1);
    // Views own nothing that a computation has.
    parts.sort((a, b) => (a.inst.op === 'reshape') - (b.inst.op === 'reshape'));
    parts.forEach(({ inst, at }) => inst.origins.forEach((origin) => { if (!owners.has(origin)) owners.set(origin, at); }));
  }
  return owners;
}

function functionIn(stage) {
  const { functions } = report.compilation;
  return stage.functions.map((at) => functions[at]).find((fn) => fn.name === graphState.name);
}

function graphPanes(stages, redraw) {
  const owners = ownersOf(stages);
  const shades = [...new Set(owners.values())].sort((a, b) => a - b);
  const shade = (inst) => {
    const votes = new Map();
    inst.origins.filter((origin) => owners.has(origin)).forEach((origin) => {
      const owner = owners.get(origin);
      votes.set(owner, (votes.get(owner) || 0) + 1);
    });
    const best = [...votes].sort((a, b) => b[1] - a[1])[0];
    return best && `var(--k${shades.indexOf(best[0]) % 8})`;
  };
  const inspector = el('div', { class: 'panel inspector', 'aria-live': 'polite' },
    el('p', {}, 'Choose an instruction. Drag or use the arrow keys to move, + and − or the wheel with Ctrl to zoom, 0 to see all.'));
  const panes = {};
  const pick = (side, at) => {
    const chosen = panes[side].fn.insts[at];
    const origins = new Set(chosen.origins);
    const related = (inst) => inst.origins.some((origin) => origins.has(origin));
    for (const [name, pane] of Object.entries(panes)) {
      pane.svg.classList.add('picking');
      pane.marks.forEach((mark, node) => {
        const inst = pane.graph.nodes[node].inst;
        mark.classList.toggle('picked', name === side && inst === at);
        mark.classList.toggle('near', inst !== undefined && related(pane.fn.insts[inst]));
      });
    }
    for (const [name, pane] of Object.entries(panes)) {
      if (name !== side) pane.camera.show(pane.graph.nodes.filter((node) => node.inst !== undefined && related(pane.fn.insts[node.inst])));
    }
    inspector.replaceChildren(...describe(panes[side].fn, at, side, panes, related, pick));
  };
  for (const side of ['left', 'right']) panes[side] = graphPane(stages, side, shade, pick, redraw);
  if (graphState.pick !== undefined) {
    const chosen = graphState.pick;
    delete graphState.pick;
    if (panes.right.fn.insts[chosen]) pick('right', chosen);
  }
  return [el('div', { class: 'panes' }, panes.left.element, panes.right.element), inspector];
}

function graphPane(stages, side, shade, pick, redraw) {
  const stage = stages[graphState[side]];
  const choose = el('select', {
    'aria-label': `Point of the compilation, ${side}`, onchange: () => { graphState[side] = Number(choose.value); redraw(); },
  }, stages.map((stage, at) => el('option', { value: at, selected: at === graphState[side] }, at === 0 ? stage.name : `after ${stage.name}`)));
  const fn = functionIn(stage);
  if (!fn) {
    const empty = { fn: { insts: [] }, graph: { nodes: [] }, marks: [], svg: svg('svg', {}), camera: { show() {} } };
    return { ...empty, element: el('div', { class: 'panel pane' }, el('div', {}, choose), el('p', { class: 'note', style: 'padding:1rem' }, `There is no @${graphState.name} yet.`)) };
  }
  const graph = graphOf(fn);
  const links = layOut(graph);
  const marks = graph.nodes.map((node) => nodeMark(fn, node, shade, () => pick(side, node.inst)));
  const world = svg('g', {}, links.map(linkMark), marks);
  const picture = svg('svg', { class: 'graph', tabindex: 0, role: 'group', 'aria-label': `@${fn.name}, ${stage.name}` }, world);
  const camera = panAndZoom(picture, world, graph.nodes);
  const button = (label, text, act) => el('button', { type: 'button', 'aria-label': label, onclick: act }, text);
  const element = el('div', { class: 'panel pane' },
    el('div', {}, choose, el('span', { class: 'grow' }, plural(fn.insts.length, 'instruction')),
      button('Zoom in', '+', () => camera.zoom(1.3)), button('Zoom out', '−', () => camera.zoom(1 / 1.3)), button('Show all', 'all', camera.fit)),
    picture);
  return { element, fn, graph, marks, svg: picture, camera };
}

function nodeMark(fn, node, shade, pick) {
  const [x, y] = [node.x - node.width / 2, node.y];
  const inst = node.inst === undefined ? null : fn.insts[node.inst];
  const color = inst && shade(inst);
  const texts = node.lines.map((line, at) => svg('text', { class: at === 0 ? 'op' : null, x: x + 10, y: y + 15 + at * LINE }, line));
  const mark = svg('g', {
    class: `node${node.leaf ? ' leaf' : ''}`, tabindex: inst ? 0 : null, role: inst ? 'button' : null, 'aria-label': node.lines.join(', '),
  }, svg('rect', { class: 'box', x, y, width: node.width, height: node.height, rx: 4 }),
  color && svg('rect', { class: 'tint', x, y, width: node.width, height: node.height, rx: 4, fill: color }),
  color && svg('rect', { x, y, width: 4, height: node.height, rx: 2, fill: color }), texts);
  if (inst) {
    mark.addEventListener('click', pick);
    mark.addEventListener('keydown', (event) => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); pick(); } });
  }
  return mark;
}

function linkMark({ from, to }) {
  const y1 = from.y + from.height;
  const y2 = to.y;
  const bend = (y2 - y1) * .5;
  return svg('path', { class: 'edge', d: `M${from.x},${y1} C${from.x},${y1 + bend} ${to.x},${y2 - bend} ${to.x},${y2}` });
}

/** Moves the world under a picture's window. */
function panAndZoom(picture, world, nodes) {
  const left = Math.min(...nodes.map((node) => node.x - node.width / 2));
  const right = Math.max(...nodes.map((node) => node.x + node.width / 2));
  const bottom = Math.max(...nodes.map((node) => node.y + node.height));
  const [width, height] = [right - left + 40, bottom + 40];
  const box = { x: left - 20, y: -20, width, height };
  const apply = () => picture.setAttribute('viewBox', `${box.x} ${box.y} ${box.width} ${box.height}`);
  const zoom = (factor, x = box.x + box.width / 2, y = box.y + box.height / 2) => {
    box.x = x - (x - box.x) / factor;
    box.y = y - (y - box.y) / factor;
    box.width /= factor;
    box.height /= factor;
    apply();
  };
  const fit = () => { Object.assign(box, { x: left - 20, y: -20, width, height }); apply(); };
  const at = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    return [point.x, point.y];
  };
  picture.addEventListener('wheel', (event) => {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== picture) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, ...at(event));
  }, { passive: false });
  const held = new Map();
  picture.addEventListener('pointerdown', (event) => held.set(event.pointerId, at(event)));
  const release = (event) => held.delete(event.pointerId);
  ['pointerup', 'pointercancel', 'pointerleave'].forEach((name) => picture.addEventListener(name, release));
  picture.addEventListener('pointermove', (event) => {
    const before = held.get(event.pointerId);
    if (!before) return;
    const [x, y] = at(event);
    if (held.size === 2) {
      const [, other] = [...held].find(([id]) => id !== event.pointerId);
      const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
      zoom(distance([x, y], other) / Math.max(distance(before, other), 1), ...other);
      held.set(event.pointerId, at(event));
      return;
    }
    box.x -= x - before[0];
    box.y -= y - before[1];
    apply();
  });
  picture.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: [-.1, 0], ArrowRight: [.1, 0], ArrowUp: [0, -.1], ArrowDown: [0, .1] }[event.key];
    if (step) { box.x += step[0] * box.width; box.y += step[1] * box.height; apply(); }
    else if (event.key === '+' || event.key === '=') zoom(1.3);
    else if (event.key === '-') zoom(1 / 1.3);
    else if (event.key === '0') fit();
    else return;
    event.preventDefault();
  });
  /** Brings nodes into view, not larger than they can well be read. */
  const show = (chosen) => {
    if (chosen.length === 0) return;
    const [x1, x2] = [Math.min(...chosen.map((n) => n.x - n.width / 2)), Math.max(...chosen.map((n) => n.x + n.width / 2))];
    const [y1, y2] = [Math.min(...chosen.map((n) => n.y)), Math.max(...chosen.map((n) => n.y + n.height))];
    const [wide, high] = [Math.max(x2 - x1 + 60, 560), Math.max(y2 - y1 + 60, 560)];
    Object.assign(box, { x: (x1 + x2 - wide) / 2, y: (y1 + y2 - high) / 2, width: wide, height: high });
    apply();
  };
  fit();
  // A tall graph begins at its top, at a size that can be read.
  if (height > width * 1.4) {
    const size = Math.min(Math.max(width, 560), 820);
    Object.assign(box, { height: size * 1.1, width: size, x: (nodes[0].x + (left + right) / 2 - size) / 2 });
  }
  apply();
  return { zoom, fit, show };
}

/** Kernels that compute an instruction after the last pass. */
function kernelsOf(name, inst) {
  const { plan, target } = view.target;
  return report.compilation.kernels
    .filter((kernel) => kernel.target === target && kernel.ops.some((op) => op.function === name && op.inst === inst))
    .map((kernel) => ({ name: kernel.name, index: plan.kernels.findIndex((known) => known.name === kernel.name) }))
    .filter(({ index }) => index >= 0);
}

/** What there is to say of an instruction. */
function describe(fn, at, side, panes, related, pick) {
  const inst = fn.insts[at];
  const value = (id) => `${valueName(fn, id)}: ${fn.values[id].type}`;
  const other = side === 'left' ? 'right' : 'left';
  const partners = panes[other].fn.insts.map((inst, index) => ({ inst, index })).filter(({ inst }) => related(inst));
  const buttons = partners.map(({ inst, index }) => el('button', { type: 'button', class: 'chip', onclick: () => pick(other, index) }, inst.op));
  const isLast = side === 'right' && fn === lastFunction(fn.name);
  const kernels = isLast ? kernelsOf(fn.name, at) : [];
  const facts = [
    ['instruction', el('code', {}, `${inst.op}${inst.attributes ? ` {${inst.attributes}}` : ''}`)],
    ['operands', inst.operands.map((id) => el('span', { class: 'chip', title: value(id) }, value(id)))],
    ['results', inst.results.map((id) => el('span', { class: 'chip', title: value(id) }, value(id)))],
    ['', `${plural(inst.origins.length, 'imported instruction')} in it`],
    [`in the ${other} graph`, buttons.length ? buttons : 'nothing'],
    ...(kernels.length ? [['kernels', kernels.map(({ name, index }) =>
      el('button', { type: 'button', class: 'chip', onclick: () => openKernel(index) }, name))]] : []),
  ];
  return [el('dl', { class: 'facts', style: 'margin:0' }, facts.map(([name, text]) => [el('dt', {}, name), el('dd', {}, text)]))];
}
