// Layered drawing of a function: longest-path layers, order by barycenters, then coordinates.

const TEXT = 6.4; // width of a character of a node's text
const LINE = 13;

/**
 * Nodes and wires of a function. Weights, constants and parameters with a single reader are lines of
 * that reader instead of nodes of their own.
 */
function graphOf(fn) {
  const producer = new Map();
  const readers = fn.values.map(() => new Set());
  fn.insts.forEach((inst, at) => {
    inst.results.forEach((value) => producer.set(value, at));
    inst.operands.forEach((value) => readers[value].add(at));
  });
  const returned = new Set(fn.results);
  const isLeaf = (at) => fn.insts[at].operands.length === 0;
  const folded = (value) => !returned.has(value) && readers[value].size <= 1
    && (value < fn.params || isLeaf(producer.get(value)));
  const nodes = [];
  const nodeOfValue = new Map();
  for (let value = 0; value < fn.params; value += 1) {
    if (folded(value)) continue;
    nodeOfValue.set(value, nodes.length);
    nodes.push({ param: value, leaf: true, lines: [valueName(fn, value), fn.values[value].type] });
  }
  fn.insts.forEach((inst, at) => {
    if (isLeaf(at) && inst.results.every(folded)) return;
    inst.results.forEach((value) => nodeOfValue.set(value, nodes.length));
    nodes.push({ inst: at, leaf: isLeaf(at), lines: nodeLines(fn, inst, inst.operands.filter(folded), producer, returned) });
  });
  const wires = [];
  nodes.forEach((node, to) => {
    if (node.inst === undefined) return;
    for (const value of new Set(fn.insts[node.inst].operands)) {
      if (nodeOfValue.has(value)) wires.push({ from: nodeOfValue.get(value), to, value });
    }
  });
  return { nodes, wires };
}

const valueName = (fn, value) => fn.values[value].name || `%${value}`;

function shorten(text, length) {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}

function nodeLines(fn, inst, inputs, producer, returned) {
  const lines = [inst.op];
  if (inst.attributes) lines.push(shorten(inst.attributes, 40));
  const names = inputs.map((value) => {
    const made = producer.get(value);
    const leaf = made === undefined ? null : fn.insts[made];
    if (leaf && leaf.op === 'weight') return fn.values[value].name || leaf.attributes.replace('weight = ', '');
    return leaf ? `${leaf.op} ${leaf.attributes}` : valueName(fn, value);
  });
  if (names.length > 3) names.splice(2, names.length, `+ ${names.length - 2} more`);
  lines.push(...names.map((name) => `· ${shorten(name, 36)}`));
  const results = inst.results.map((value) => `${returned.has(value) ? '⇥ ' : ''}${fn.values[value].type}`);
  if (results.length > 3) results.splice(2, results.length, `+ ${results.length - 2} more`);
  return [...lines, ...results.map((type) => `→ ${shorten(type, 36)}`)];
}

/** Gives each node its place. Wires that pass layers go through points in between. */
function layOut(graph) {
  const { nodes, wires } = graph;
  for (const node of nodes) {
    node.width = Math.max(...node.lines.map((line) => line.length)) * TEXT + 18;
    node.height = node.lines.length * LINE + 9;
    node.layer = 0;
  }
  // Nodes come in an order in which operands stand first.
  const order = [...wires].sort((a, b) => a.to - b.to);
  for (const { from, to } of order) nodes[to].layer = Math.max(nodes[to].layer, nodes[from].layer + 1);
  sinkConstants(nodes, wires);
  const layers = [];
  const place = (item) => { (layers[item.layer] ||= []).push(item); };
  nodes.forEach(place);
  const links = wireThrough(nodes, wires, place);
  orderLayers(layers, links);
  assignX(layers, links);
  assignY(layers);
  return links;
}

/** What is computed from weights and constants alone stands right above its first reader. */
function sinkConstants(nodes, wires) {
  for (const node of nodes) node.constant = true;
  nodes.forEach((node, at) => {
    const operands = wires.filter((wire) => wire.to === at);
    node.constant = operands.every((wire) => nodes[wire.from].constant) && (node.inst !== undefined || operands.length > 0);
  });
  for (let at = nodes.length - 1; at >= 0; at -= 1) {
    const readers = wires.filter((wire) => wire.from === at).map((wire) => nodes[wire.to].layer);
    if ((nodes[at].constant || nodes[at].leaf) && readers.length) nodes[at].layer = Math.max(Math.min(...readers) - 1, 0);
  }
}

/** One chain of points for each value, which its readers branch off from. */
function wireThrough(nodes, wires, place) {
  const links = [];
  const chains = new Map();
  for (const wire of wires) {
    const key = wire.value;
    if (!chains.has(key)) chains.set(key, [nodes[wire.from]]);
    const chain = chains.get(key);
    const [first, to] = [nodes[wire.from].layer, nodes[wire.to]];
    while (first + chain.length < to.layer) {
      const point = { layer: first + chain.length, point: true, width: 6, height: 0 };
      links.push({ from: chain[chain.length - 1], to: point });
      chain.push(point);
      place(point);
    }
    links.push({ from: chain[to.layer - first - 1], to });
  }
  return links;
}

function orderLayers(layers, links) {
  const above = new Map();
  const below = new Map();
  const add = (map, key, item) => map.set(key, [...(map.get(key) || []), item]);
  for (const { from, to } of links) { add(above, to, from); add(below, from, to); }
  const number = () => layers.forEach((layer) => layer.forEach((item, at) => { item.order = at; }));
  number();
  const sweep = (layer, neighbours) => {
    layer.forEach((item) => {
      const around = neighbours.get(item) || [];
      item.weight = around.length ? sum(around.map((other) => other.order)) / around.length : item.order;
    });
    layer.sort((a, b) => a.weight - b.weight || a.order - b.order);
    layer.forEach((item, at) => { item.order = at; });
  };
  for (let round = 0; round < 10; round += 1) {
    if (round % 2 === 0) layers.slice(1).forEach((layer) => sweep(layer, above));
    else layers.slice(0, -1).reverse().forEach((layer) => sweep(layer, below));
  }
}

/** Each item as near to the mean of its neighbours as the order of its layer lets it. */
function assignX(layers, links) {
  const near = new Map();
  for (const { from, to } of links) {
    near.set(from, [...(near.get(from) || []), to]);
    near.set(to, [...(near.get(to) || []), from]);
  }
  const gap = (a, b) => (a.width + b.width) / 2 + (a.point || b.point ? 10 : 18);
  for (const layer of layers) {
    let x = 0;
    layer.forEach((item, at) => { x += at ? gap(layer[at - 1], item) : 0; item.x = x; });
    layer.forEach((item) => { item.x -= x / 2; });
  }
  for (let round = 0; round < 24; round += 1) {
    const down = round % 2 === 0;
    for (const layer of down ? layers : [...layers].reverse()) {
      const wanted = layer.map((item) => {
        const around = (near.get(item) || []).filter((other) => round > 18 || (other.layer < item.layer) === down);
        return around.length ? sum(around.map((other) => other.x)) / around.length : item.x;
      });
      const right = [...wanted];
      for (let at = 1; at < layer.length; at += 1) right[at] = Math.max(right[at], right[at - 1] + gap(layer[at - 1], layer[at]));
      const left = [...wanted];
      for (let at = layer.length - 2; at >= 0; at -= 1) left[at] = Math.min(left[at], left[at + 1] - gap(layer[at], layer[at + 1]));
      layer.forEach((item, at) => { item.x = (right[at] + left[at]) / 2; });
    }
  }
}

function assignY(layers) {
  let y = 0;
  for (const layer of layers) {
    const height = Math.max(...layer.map((item) => item.height));
    layer.forEach((item) => { item.y = y + (item.point ? height / 2 : 0); });
    y += height + Math.min(22 + layer.length * 2, 46);
  }
}
