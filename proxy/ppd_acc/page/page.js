"use strict";
(() => {
  const form = document.getElementById("controls");
  const list = document.getElementById("list");
  if (!form || !list) return;
  const samples = [...list.children].map((node, order) => ({ node, order, text: null }));
  const status = new Set();

  function filter() {
    status.clear();
    for (const box of form.querySelectorAll("input[type=checkbox]")) if (box.checked) status.add(box.value);
    const wanted = form.elements.search.value.trim().toLowerCase();
    let shown = 0;
    for (const sample of samples) {
      if (wanted && sample.text === null) sample.text = sample.node.textContent.toLowerCase();
      const fits = status.has(sample.node.dataset.status) && (!wanted || sample.text.includes(wanted));
      sample.node.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    form.querySelector("output").textContent = `${shown} of ${samples.length} shown`;
  }

  function sort() {
    const by = form.elements.sort.value;
    const value = (sample) => (by in sample.node.dataset ? Number(sample.node.dataset[by]) : null);
    const sign = by === "position" ? 1 : -1;
    samples.sort((one, other) => {
      if (by === "order") return one.order - other.order;
      const [a, b] = [value(one), value(other)];
      if (a === null || b === null) return (a === null) - (b === null) || one.order - other.order;
      return sign * (a - b) || one.order - other.order;
    });
    list.append(...samples.map((sample) => sample.node));
  }

  function open() {
    const node = location.hash.startsWith("#sample-") ? document.getElementById(location.hash.slice(1)) : null;
    if (!node) return;
    node.hidden = false;
    node.open = true;
    node.scrollIntoView();
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => (event.target.name === "sort" ? sort() : filter()));
  addEventListener("hashchange", open);
  form.hidden = false;
  filter();
  open();
})();
