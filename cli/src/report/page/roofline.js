// Every kernel under the roofline of the target's hardware.

function rooflineSection() {
  const { plan } = view.target;
  if (!plan.machine) {
    return el('p', { class: 'note' },
      `The plan does not describe the hardware of ${view.target.target}, so there is no roofline and no prediction.`);
  }
  const points = rooflinePoints(plan);
  if (points.length === 0) return el('p', { class: 'note' }, 'The plan does not say how much work its kernels do.');
  return [
    el('p', { class: 'note' },
      'Operations per byte against the rate that the maker’s figures allow. Predictions lie on the roof by definition: '
      + 'where a kernel stands says what bounds it, its area what it takes of the time of its step.'),
    el('div', { class: 'panel figure' }, rooflinePicture(plan, points)),
    el('p', { class: 'legend' },
      el('span', {}, `● prefill of ${plural(view.tokens, 'token')}`),
      el('span', {}, `○ a decode step, KV cache of ${integer(view.cache)}`),
      [...kindLegend(view.colors, new Set(points.map((point) => kindOf(point.kernel.name)))).children]),
  ];
}

function rooflinePoints(plan) {
  const points = [];
  for (const role of ['prefill', 'decode']) {
    const program = plan.programs[plan.decode_loop[role]];
    const whole = stepOf(plan, program).time;
    plan.kernels.forEach((kernel, index) => {
      const count = program.launches.filter((launch) => launch.kernel === index).length;
      const work = count > 0 && workOf(plan, index, program.name);
      if (!work || !(work.moved > 0) || !(work.operations > 0)) return;
      points.push({
        kernel, index, role, work, count, intensity: work.operations / work.moved,
        rate: work.operations / work.time, share: work.time * count / whole,
      });
    });
  }
  // Small ones over large ones.
  return points.sort((a, b) => b.share - a.share);
}

function rooflinePicture(plan, points) {
  const [width, height, left, right, top, bottom] = [1000, 400, 82, 26, 16, 40];
  const { bandwidth, matrix_rate: rate } = plan.machine;
  const ridge = rate / bandwidth;
  const least = Math.floor(Math.log10(Math.min(...points.map((p) => p.intensity), ridge / 100)));
  const largest = Math.ceil(Math.log10(Math.max(...points.map((p) => p.intensity), ridge * 10)));
  const top10 = Math.log10(rate) + .35;
  const bottom10 = Math.log10(Math.min(...points.map((p) => p.rate), 10 ** least * bandwidth)) - .25;
  const x = (value) => left + (Math.log10(value) - least) / (largest - least) * (width - left - right);
  const y = (value) => top + (top10 - Math.log10(value)) / (top10 - bottom10) * (height - top - bottom);
  const picture = svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': 'Roofline' });
  for (let power = least; power <= largest; power += 1) {
    picture.append(svg('line', { class: 'grid', x1: x(10 ** power), x2: x(10 ** power), y1: top, y2: height - bottom }));
    picture.append(svg('text', { x: x(10 ** power), y: height - bottom + 16, 'text-anchor': 'middle' },
      power < -3 || power > 4 ? `1e${power}` : String(10 ** power < 1 ? (10 ** power).toFixed(-power) : integer(10 ** power))));
  }
  for (let power = Math.ceil(bottom10); power <= top10; power += 1) {
    picture.append(svg('line', { class: 'grid', x1: left, x2: width - right, y1: y(10 ** power), y2: y(10 ** power) }));
    picture.append(svg('text', { x: left - 6, y: y(10 ** power) + 4, 'text-anchor': 'end' }, scaled(10 ** power, 'op/s').replace('.00', '')));
  }
  picture.append(svg('text', { x: (left + width - right) / 2, y: height - 6, 'text-anchor': 'middle' }, 'operations per byte'));
  const corner = [x(ridge), y(rate)];
  picture.append(svg('polyline', {
    class: 'rule', points: `${x(10 ** least)},${y(10 ** least * bandwidth)} ${corner} ${width - right},${y(rate)}`, 'stroke-width': 1.4,
  }));
  const slope = Math.atan2(y(10 ** least * bandwidth) - corner[1], corner[0] - x(10 ** least)) * 180 / Math.PI;
  const middle = [(x(10 ** least) + corner[0]) / 2, (y(10 ** least * bandwidth) + corner[1]) / 2];
  picture.append(svg('text', { class: 'strong', transform: `translate(${middle}) rotate(${-slope})`, y: -14, 'text-anchor': 'middle' }, scaled(bandwidth, 'B/s')));
  picture.append(svg('text', { class: 'strong', x: width - right - 4, y: corner[1] - 8, 'text-anchor': 'end' }, scaled(rate, 'op/s')));
  picture.append(svg('text', { x: corner[0] + 8, y: corner[1] + 26 }, `ridge at ${round(ridge)}`));
  const marks = points.map((point) => rooflineMark(point, x, y));
  picture.append(...marks);
  roving(marks);
  return picture;
}

function rooflineMark(point, x, y) {
  const { kernel, work } = point;
  const color = colorOf(kernel);
  const text = `${kernel.name} (${point.role})\n${plural(point.count, 'time')}, ${seconds(work.time)} each: ${(100 * point.share).toFixed(1)}% of the step\n`
    + `${bytes(work.moved)}, ${scaled(work.operations, 'op')}: ${round(point.intensity)} operations per byte\n${scaled(point.rate, 'op/s')}, ${scaled(work.moved / work.time, 'B/s')}`;
  return svg('circle', {
    class: 'mark kernel', cx: x(point.intensity), cy: y(point.rate), r: 4 + 20 * Math.sqrt(point.share),
    fill: point.role === 'prefill' ? color : 'var(--panel)', 'fill-opacity': .55, stroke: color, 'stroke-width': 1.4,
    role: 'link', 'aria-label': text.replaceAll('\n', ', '), tip: text, onclick: () => openKernel(point.index),
  });
}
