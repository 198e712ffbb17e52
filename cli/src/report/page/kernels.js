// Kernels as a table, and the programs that launch them.

/** Columns: title, whether it is a number, what to sort by, what to show. */
function kernelColumns(plan, rows) {
  const columns = [
    { title: 'kernel', key: (row) => row.kernel.name },
  ];
  for (const role of ['prefill', 'decode']) {
    const whole = sum(rows.map((row) => row[role].time));
    const blank = (show) => (v, row) => row[role].count ? show(v, row) : '';
    columns.push({ title: 'launches', group: role, split: true, key: (row) => row[role].count, show: (v) => v || '' });
    if (!plan.machine) continue;
    columns.push(
      { title: 'bytes', group: role, key: (row) => row[role].moved, show: blank((v) => v ? bytes(v) : '–') },
      {
        title: 'predicted', group: role, key: (row) => row[role].time,
        show: blank((v, row) => el('span', { class: 'under', tip: `${percent(v, whole)} of a step of ${role}` },
          v ? [seconds(v), bar(v / whole, colorOf(row.kernel))] : '–')),
      });
  }
  if (rows.some((row) => row.facts)) {
    const fact = (title, key, show) => columns.push({
      title, group: 'code', split: title === 'VGPRs', key: (row) => row.facts ? key(row.facts) : -1, show: (v, row) => row.facts ? (show ? show(row.facts) : v) : '',
    });
    fact('VGPRs', (facts) => facts.vgprs);
    fact('spilled', (facts) => facts.spills + facts.private_bytes);
    fact('LDS', (facts) => facts.lds_bytes, (facts) => facts.lds_bytes ? bytes(facts.lds_bytes) : '0');
    fact('waves', (facts) => facts.waves_per_simd);
    const hot = (facts, name) => facts.hot_loop ? facts.hot_loop[name] : 0;
    fact('matrix ops', (facts) => hot(facts, 'matrix'), (facts) => facts.hot_loop ? `${facts.hot_loop.matrix}/${facts.hot_loop.instructions}` : '');
    fact('loads', (facts) => hot(facts, 'wide_loads') + hot(facts, 'narrow_loads'),
      (facts) => facts.hot_loop ? `${facts.hot_loop.wide_loads}+${facts.hot_loop.narrow_loads}` : '');
  }
  return columns;
}

function kernelRows({ plan, kernels }) {
  return plan.kernels.map((kernel, index) => {
    const row = { kernel, index, facts: kernels[index].facts };
    for (const role of ['prefill', 'decode']) {
      const program = plan.programs[plan.decode_loop[role]];
      const count = program.launches.filter((launch) => launch.kernel === index).length;
      const work = workOf(plan, index, program.name);
      row[role] = { count, moved: work ? work.moved : 0, time: work && work.time ? work.time * count : 0 };
    }
    return row;
  });
}

const kernelState = { sort: null, descending: true, open: new Set() };

function kernelSection() {
  const rows = kernelRows(view.target);
  const { plan } = view.target;
  const columns = kernelColumns(plan, rows);
  const body = el('tbody', {});
  const head = el('tr', {});
  const groups = kernelGroups(columns);
  if (kernelState.sort === null) kernelState.sort = Math.max(columns.findLastIndex((c) => c.title === 'predicted'), 0);
  const draw = () => {
    const column = columns[kernelState.sort] || columns[0];
    const order = (a, b) => {
      const [p, q] = [column.key(a), column.key(b)];
      const sign = p < q ? -1 : p > q ? 1 : 0;
      return kernelState.descending ? -sign : sign;
    };
    head.replaceChildren(...columns.map((column, at) => kernelTitle(column, at, draw)));
    body.replaceChildren(...[...rows].sort(order).flatMap((row) => kernelRow(row, columns)));
  };
  draw();
  const hasFacts = rows.some((row) => row.facts);
  return [
    el('p', { class: 'note' }, [
      plan.machine && 'Bytes: that each launch must move. Predicted: all launches of a step together, by the roofline of nominal figures. ',
      hasFacts && 'Waves: per SIMD. Spilled: registers and bytes of private memory. Of the hot loop: matrix operations of all instructions; loads 16 bytes wide + narrower ones.',
    ].filter(Boolean).join('')),
    el('div', { class: 'panel wide', style: 'overflow-x:auto' },
      el('table', { id: 'kernel-table' }, el('thead', {}, groups, head), body)),
    el('p', { class: 'legend screen' },
      el('button', { type: 'button', onclick: () => { rows.forEach((row) => kernelState.open.add(row.index)); draw(); } }, 'open all'),
      el('button', { type: 'button', onclick: () => { kernelState.open.clear(); draw(); } }, 'close all')),
  ];
}

/** A row over the titles: which program, or the code. */
function kernelGroups(columns) {
  const groups = [];
  for (const { group } of columns) {
    if (groups.length && groups[groups.length - 1].group === group) groups[groups.length - 1].span += 1;
    else groups.push({ group, span: 1 });
  }
  return el('tr', { class: 'group' }, groups.map(({ group, span }) =>
    el('th', { colspan: group && span, scope: group && 'colgroup', class: group && 'split' }, group || '')));
}

function kernelTitle(column, at, draw) {
  const sorted = kernelState.sort === at;
  const sort = () => {
    kernelState.descending = sorted ? !kernelState.descending : at > 0;
    kernelState.sort = at;
    draw();
    byId('kernel-table').tHead.rows[1].cells[at].querySelector('button').focus();
  };
  return el('th', {
    scope: 'col', class: at > 0 && `n${column.split ? ' split' : ''}`,
    'aria-sort': sorted && (kernelState.descending ? 'descending' : 'ascending'),
  }, el('button', { type: 'button', onclick: sort, 'aria-label': column.group ? `${column.group}: ${column.title}` : null }, column.title));
}

function kernelRow(row, columns) {
  const open = kernelState.open.has(row.index);
  const toggle = el('button', {
    type: 'button', class: 'toggle', 'aria-expanded': String(open), onclick: () => {
      if (kernelState.open.has(row.index)) kernelState.open.delete(row.index); else kernelState.open.add(row.index);
      const current = byId(`kernel-${row.index}`);
      if (current.nextElementSibling && current.nextElementSibling.classList.contains('more')) current.nextElementSibling.remove();
      const rows = kernelRow(row, columns);
      current.replaceWith(...rows);
      rows[0].querySelector('button').focus();
    },
  }, breakable(row.kernel.name));
  const cells = columns.map((column, at) => at === 0
    ? el('th', { scope: 'row' }, el('span', { class: 'named' }, dot(colorOf(row.kernel)), toggle))
    : el('td', { class: `n${column.split ? ' split' : ''}` }, column.show(column.key(row), row)));
  const line = el('tr', { class: `row${open ? ' open' : ''}`, id: `kernel-${row.index}` }, cells);
  if (!open) return [line];
  return [line, el('tr', { class: 'more' }, el('td', { class: 'detail', colspan: columns.length }, kernelDetail(row)))];
}

function kernelDetail({ kernel, index, facts }) {
  const { plan, target } = view.target;
  const launch = plan.programs.flatMap((program) => program.launches).find((launch) => launch.kernel === index);
  const list = [['computes', el('code', {}, kernel.summary)]];
  if (kernel.workgroup) list.push(['workgroup', `${kernel.workgroup} work-items`]);
  if (launch) {
    list.push(['grid', el('code', {}, spell(launch.grid, plan.symbols))],
      ['arguments', argumentChips(plan, launch)]);
  }
  if (kernel.work) {
    list.push(['moves', el('code', {}, `${spell(kernel.work.bytes, plan.symbols)} bytes`)],
      ['does', el('code', {}, `${spell(kernel.work.operations, plan.symbols)} operations`)]);
  }
  if (facts) {
    list.push(['code', `${plural(facts.instructions, 'instruction')}, ${plural(facts.vgprs, 'VGPR')}, ${plural(facts.sgprs, 'SGPR')}`
      + (facts.hot_loop ? `; hot loop: ${facts.hot_loop.instructions}, with ${plural(facts.hot_loop.full_waits, 'wait')} for all loads` : '')]);
  }
  const texts = report.compilation
    && report.compilation.kernels.find((text) => text.target === target && text.name === kernel.name);
  if (texts) {
    list.push(['instructions', texts.ops.length
      ? texts.ops.map((op) => el('button', { type: 'button', class: 'chip', onclick: () => showInGraph(op) }, `@${op.function}: ${opName(op)}`)) : 'none']);
    const { tiles } = texts;
    if (tiles) {
      list.push(['tiles', el('code', {}, tiles.chosen)], ['chosen', tiles.why]);
      if (tiles.runner_up) {
        const ratio = tiles.cycles ? `, ${(tiles.runner_up_cycles / tiles.cycles).toFixed(3)} times the time` : '';
        list.push(['runner-up', [el('code', {}, tiles.runner_up), `${ratio}, of ${integer(tiles.candidates)} that were reckoned`]]);
      }
    }
  }
  const text = (title, content) => el('details', {},
    el('summary', {}, `${title}, ${plural(content.split('\n').length, 'line')}`), el('pre', { tabindex: 0 }, content));
  return [
    el('dl', { class: 'facts' }, list.map(([name, value]) => [el('dt', {}, name), el('dd', {}, value)])),
    texts && text('Assembly', texts.assembly), texts && text('LLVM IR', texts.llvm_ir), texts && text('MLIR', texts.mlir),
  ];
}

/** A name that may be broken after its underscores. */
const breakable = (name) => name.split('_').flatMap((part, at) => at ? ['_', el('wbr'), part] : [part]);

/** Opens a kernel's row and goes to it. */
function openKernel(index) {
  const row = byId(`kernel-${index}`);
  const button = row.querySelector('.toggle');
  if (button.getAttribute('aria-expanded') === 'false') button.click();
  byId(`kernel-${index}`).scrollIntoView({ block: 'center' });
  byId(`kernel-${index}`).querySelector('.toggle').focus({ preventScroll: true });
}

/** The end of a long name says more than its beginning. */
const shortName = (name) => name.length <= 30 ? name : `…${name.slice(-29)}`;

function argumentChips(plan, launch) {
  const written = new Set(launch.writes);
  return launch.args.map((arg) => {
    if (arg === 'scratch') return el('span', { class: 'chip plain' }, 'scratch');
    if ('scalar' in arg) return el('span', { class: 'chip plain' }, spell(arg.scalar, plan.symbols));
    const buffer = plan.buffers[arg.buffer];
    const writes = written.has(arg.buffer);
    return el('span', {
      class: `chip${writes ? ' write' : ''}`, title: `b${arg.buffer} ${buffer.name}, ${buffer.segment}${writes ? ', written' : ''}`,
    }, `${writes ? '→ ' : ''}${shortName(buffer.name)}`);
  });
}

// ---------------------------------------------------------------- launches

const launchState = { program: null };

function launchSection() {
  const { plan } = view.target;
  const names = plan.programs.map((program) => program.name);
  if (!names.includes(launchState.program)) launchState.program = programNamed(plan, 'decode');
  const place = el('div', {});
  const draw = (name) => {
    launchState.program = name;
    place.replaceChildren(...launchTable(plan, plan.programs.find((program) => program.name === name)));
  };
  draw(launchState.program);
  return [tabs('Program', names, launchState.program, draw), place];
}

function launchTable(plan, program) {
  const symbols = symbolsOf(plan, program.name);
  const works = program.launches.map((launch) => workOf(plan, launch.kernel, program.name));
  const whole = sum(works.map((work) => work && work.time || 0));
  let done = 0;
  const rows = program.launches.map((launch, at) => {
    const kernel = plan.kernels[launch.kernel];
    const time = works[at] && works[at].time || 0;
    done += time;
    const grid = evaluate(launch.grid, symbols);
    const cells = [
      el('td', { class: 'n' }, String(at)),
      el('th', { scope: 'row' }, dot(colorOf(kernel)), el('a', {
        href: `#kernel-${launch.kernel}`, class: 'mono', style: 'color:inherit;text-decoration:none',
        onclick: (event) => { event.preventDefault(); openKernel(launch.kernel); },
      }, kernel.name)),
      el('td', { class: 'n', title: spell(launch.grid, plan.symbols) }, integer(grid)),
      el('td', { class: 'arguments' }, argumentChips(plan, launch)),
    ];
    if (whole > 0) {
      cells.push(el('td', { class: 'n' }, time ? seconds(time) : ''), el('td', { class: 'n' }, seconds(done)),
        el('td', {}, bar(done / whole, colorOf(kernel))));
    }
    return el('tr', { class: 'row' }, cells);
  });
  const titles = [['#', 'n'], ['kernel'], ['grid', 'n'], ['arguments, → written', 'arguments'],
    ...(whole > 0 ? [['predicted', 'n'], ['cumulated', 'n'], ['']] : [])];
  const head = el('tr', {}, titles.map(([title, kind]) => el('th', { scope: 'col', class: kind }, title)));
  return [
    persistentNote(plan, program),
    whole > 0 ? launchStrip(plan, program, works, whole) : null,
    el('div', { class: 'panel scroll' }, el('table', { id: 'launch-table' }, el('thead', {}, head), el('tbody', {}, rows))),
  ].filter(Boolean);
}

/** That some of the launches can run as one kernel, if so. */
function persistentNote(plan, program) {
  const step = plan.persistent;
  if (!step || plan.programs[step.program] !== program) return null;
  return el('p', { class: 'note' }, `The first ${step.launches} of these launches run as one kernel, ${plan.kernels[step.kernel].name}, where the device has room for it: `
    + `${plural(step.streams.length, 'stream')} of instructions, one for each workgroup, ordered by ${plural(step.flags, 'flag')}. Predictions are those of the launches.`);
}

/** Launches side by side, as wide as they take time. */
function launchStrip(plan, program, works, whole) {
  let done = 0;
  const marks = program.launches.map((launch, at) => {
    const kernel = plan.kernels[launch.kernel];
    const time = works[at] && works[at].time || 0;
    const mark = svg('rect', {
      class: 'mark launch', x: 1000 * done / whole, y: 0, width: Math.max(1000 * time / whole - .25, .2), height: 26,
      fill: colorOf(kernel), 'fill-opacity': .75, role: 'img', tip: `${at}: ${kernel.name}\n${seconds(time)}, from ${seconds(done)}`,
      'aria-label': `${at}: ${kernel.name}, ${seconds(time)}`,
      onclick: () => byId('launch-table').tBodies[0].rows[at].scrollIntoView({ block: 'center' }),
    });
    done += time;
    return mark;
  });
  roving(marks);
  return el('div', { class: 'panel figure' },
    el('h3', {}, 'Predicted time', el('span', {}, `${seconds(whole)} in all`)),
    svg('svg', { viewBox: '0 0 1000 26', preserveAspectRatio: 'none', style: 'height:26px', role: 'group', 'aria-label': 'Predicted time by launch' }, marks),
    kindLegend(view.colors, new Set(program.launches.map((launch) => kindOf(plan.kernels[launch.kernel].name)))));
}
