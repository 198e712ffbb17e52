// The arena over the schedule: offset by launch, a rectangle for each buffer.

function memorySection() {
  const { lifetimes, memory, plan } = view.target;
  const drawn = lifetimes.filter((program) => program.buffers.length > 0);
  const note = 'Each rectangle is a buffer, from the first launch that has it among its arguments to the last. '
    + 'Its color is that of the kernel that first writes it. Drag to look at some of the launches, double-click for all.';
  if (drawn.length === 0) return el('p', { class: 'note' }, 'No program uses the arena.');
  const kinds = new Set();
  const figures = drawn.map((program) => memoryFigure(plan, memory, program, kinds));
  return [el('p', { class: 'note' }, note), figures, kindLegend(view.colors, kinds)];
}

function memoryFigure(plan, memory, lives, kinds) {
  const program = plan.programs.find((other) => other.name === lives.program);
  const count = program.launches.length;
  const most = Math.max(...lives.live_bytes);
  const place = el('div', {});
  const draw = (from, to) => place.replaceChildren(memoryPicture(plan, memory, lives, program, kinds, from, to, draw));
  draw(0, count);
  return el('div', { class: 'panel figure' },
    el('h3', {}, lives.program,
      el('span', {}, `${plural(lives.buffers.length, 'buffer')}, ${plural(count, 'launch').replace('launchs', 'launches')}; at most ${bytes(most)} in use`)),
    place);
}

function memoryPicture(plan, memory, lives, program, kinds, from, to, draw) {
  const [width, height, left, right, top, bottom] = [1000, 250, 74, 12, 14, 30];
  const high = Math.max(memory.arena, 1) * 1.06;
  const x = (launch) => left + (launch - from) / (to - from) * (width - left - right);
  const y = (offset) => height - bottom - offset / high * (height - top - bottom);
  const picture = svg('svg', {
    viewBox: `0 0 ${width} ${height}`, role: 'group',
    'aria-label': `Arena over the launches of ${lives.program}`,
  });
  axisBytes(picture, memory.arena, y, left, width - right);
  axisLaunches(picture, from, to, x, height - bottom);
  const inside = lives.buffers.filter((life) => life.last >= from && life.first < to);
  const marks = inside.map((life) => memoryMark(plan, life, program, kinds, x, y, from, to));
  picture.append(...marks);
  roving(marks);
  const line = (bytesAt, text, dashed, anchor) => {
    picture.append(svg('line', { class: `rule${dashed ? ' dash' : ''}`, x1: left, x2: width - right, y1: y(bytesAt), y2: y(bytesAt) }));
    picture.append(svg('text', { class: 'strong', x: anchor === 'end' ? width - right - 4 : left + 4, y: y(bytesAt) - 4, 'text-anchor': anchor }, text));
  };
  line(memory.arena, `peak ${bytes(memory.arena)}`, false, 'start');
  line(memory.arena_lower_bound, `lower bound ${bytes(memory.arena_lower_bound)}`, true, 'end');
  const points = lives.live_bytes.flatMap((live, at) =>
    at < from || at >= to ? [] : [`${x(at)},${y(live)}`, `${x(at + 1)},${y(live)}`]);
  picture.append(svg('polyline', { class: 'rule', points: points.join(' '), 'stroke-opacity': .4, 'stroke-width': .7, 'pointer-events': 'none' }));
  zoomByDragging(picture, x, from, to, program.launches.length, height - bottom, top, draw);
  return picture;
}

function memoryMark(plan, life, program, kinds, x, y, from, to) {
  const buffer = plan.buffers[life.buffer];
  const launch = program.launches[life.first];
  const kernel = plan.kernels[launch.kernel];
  kinds.add(kindOf(kernel.name));
  const [begin, end] = [Math.max(life.first, from), Math.min(life.last + 1, to)];
  const text = `${buffer.name}\n${bytes(life.bytes)} at ${integer(life.offset)}\nlaunches ${life.first} to ${life.last}`
    + (life.read_first ? '\nholds something from before the program' : `\nwritten by ${kernel.name}`);
  return svg('rect', {
    class: 'mark buffer', x: x(begin), y: y(life.offset + life.bytes), width: Math.max(x(end) - x(begin) - .6, 1),
    height: Math.max(y(life.offset) - y(life.offset + life.bytes), 1.2), rx: 1.2,
    fill: colorOf(kernel), 'fill-opacity': .62, role: 'img', 'aria-label': text.replaceAll('\n', ', '), tip: text,
  });
}

function axisBytes(picture, most, y, left, right) {
  let step = 1;
  while (most / step > 5) step *= 2;
  for (let at = 0; at <= most; at += step) {
    picture.append(svg('line', { class: 'grid', x1: left, x2: right, y1: y(at), y2: y(at) }));
    picture.append(svg('text', { x: left - 6, y: y(at) + 4, 'text-anchor': 'end' }, bytes(at)));
  }
}

function axisLaunches(picture, from, to, x, base) {
  const step = [1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000].find((step) => (to - from) / step <= 12) || 5000;
  for (let at = Math.ceil(from / step) * step; at < to; at += step) {
    picture.append(svg('line', { class: 'axis', x1: x(at), x2: x(at), y1: base, y2: base + 4 }));
    picture.append(svg('text', { x: x(at), y: base + 16, 'text-anchor': 'middle' }, String(at)));
  }
  picture.append(svg('text', { x: x(to), y: base + 27, 'text-anchor': 'end' }, 'launch'));
}

function zoomByDragging(picture, x, from, to, count, base, top, draw) {
  let start = null;
  const band = svg('rect', { y: top, height: base - top, fill: 'var(--accent)', 'fill-opacity': .15, visibility: 'hidden', 'pointer-events': 'none' });
  picture.append(band);
  const launchAt = (event) => {
    const box = picture.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * 1000;
    return Math.min(Math.max(from + (at - x(from)) / (x(to) - x(from)) * (to - from), from), to);
  };
  picture.addEventListener('pointerdown', (event) => { start = launchAt(event); });
  picture.addEventListener('pointermove', (event) => {
    if (start === null) return;
    const [a, b] = [start, launchAt(event)].sort((p, q) => p - q);
    band.setAttribute('x', x(a));
    band.setAttribute('width', x(b) - x(a));
    band.setAttribute('visibility', 'visible');
  });
  picture.addEventListener('pointerup', (event) => {
    const [a, b] = [start, launchAt(event)].sort((p, q) => p - q);
    start = null;
    band.setAttribute('visibility', 'hidden');
    if (x(b) - x(a) > 12) draw(Math.floor(a), Math.max(Math.ceil(b), Math.floor(a) + 1));
  });
  picture.addEventListener('dblclick', () => draw(0, count));
}
