// Draws the charts of the page from its data. Every figure is in a table beside its chart too.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const charts = [];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const SERIES = ["one", "two", "three", "four", "five", "six"];

  function bytes(value) {
    for (const unit of ["B", "KiB", "MiB", "GiB"]) {
      if (Math.abs(value) < 1024) return `${value.toFixed(unit === "B" ? 0 : 1)} ${unit}`;
      value /= 1024;
    }
    return `${value.toFixed(1)} TiB`;
  }
  const dollars = (value) => `$${value.toFixed(2)}`;
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  const milliseconds = (value) => `${Number(value.toPrecision(3))} ms`;
  const moment = (value) => new Date(value).toISOString().slice(0, 16).replace("T", " ");
  const day = (value) => new Date(value).toISOString().slice(0, 10);

  // Tooltips are drawn as text, and never as HTML: names come from whoever may write to the mount.
  const tooltip = (more) => ({
    renderMode: "richText", backgroundColor: colour("card"), borderColor: colour("line"),
    textStyle: { color: colour("text") }, confine: true, ...more,
  });
  const label = () => ({ color: colour("quiet"), fontSize: 12 });
  const lines = () => ({ lineStyle: { color: colour("line") } });
  const axis = (more) => ({
    axisLabel: { ...label(), hideOverlap: true, ...(more.axisLabel || {}) },
    axisLine: lines(), splitLine: lines(), nameTextStyle: label(),
    ...Object.fromEntries(Object.entries(more).filter(([key]) => key !== "axisLabel")),
  });
  // On a narrow screen a legend takes two lines.
  const grid = () => (
    { left: 8, right: 24, top: innerWidth < 640 ? 64 : 36, bottom: 8, outerBoundsMode: "same" });
  const legend = () => ({ textStyle: label(), top: 0, type: "plain" });
  const base = (more) => ({
    animation: false, aria: { enabled: true },
    textStyle: { fontFamily: getComputedStyle(document.body).fontFamily },
    color: SERIES.map(colour), ...more,
  });

  const options = {
    space: () => {
      const areas = new Map();
      for (const row of data.space) {
        if (!areas.has(row.area)) areas.set(row.area, []);
        areas.get(row.area).push({ name: row.name, value: row.size });
      }
      return base({
        tooltip: tooltip({ formatter: (item) => `${item.name}: ${bytes(item.value)}` }),
        series: [{
          type: "treemap", roam: false, nodeClick: false, breadcrumb: { show: false },
          left: 0, right: 0, top: 0, bottom: 0, visibleMin: 0,
          label: { color: colour("on-colour"), overflow: "truncate", lineHeight: 16,
            formatter: (item) => `${item.name}\n${bytes(item.value)}` },
          upperLabel: { show: true, height: 22, color: colour("on-colour"), fontWeight: 600,
            formatter: (item) => `${item.name}: ${bytes(item.value)}` },
          itemStyle: { borderColor: colour("page"), borderWidth: 1, gapWidth: 1 },
          levels: [
            { upperLabel: { show: false }, itemStyle: { borderWidth: 0, gapWidth: 4 } },
            { itemStyle: { borderWidth: 2, gapWidth: 2, borderColorSaturation: 0.5 } },
          ],
          data: [...areas].map(([area, children]) => ({
            name: area, children, itemStyle: { color: colour(area), borderColor: colour(area) },
          })),
        }],
      });
    },
    hits: () => {
      const rows = data.activity.caches.slice(0, 12).reverse();
      const kinds = [["memory", "hits in memory"], ["mount", "hits on the mount"],
        ["stale", "stale values"], ["misses", "misses"]];
      return base({
        tooltip: tooltip({ trigger: "axis", axisPointer: { type: "shadow" } }),
        legend: legend(), grid: grid(),
        xAxis: axis({ type: "value" }),
        yAxis: axis({ type: "category", data: rows.map((row) => row.name),
          axisLabel: { width: 120, overflow: "truncate" } }),
        series: kinds.map(([key, name]) => ({
          type: "bar", stack: "all", name, data: rows.map((row) => row[key]), barMaxWidth: 28,
        })),
      });
    },
    latency: () => {
      const rows = data.activity.caches.filter((row) => row.read.count).slice(0, 12).reverse();
      return base({
        tooltip: tooltip({ trigger: "axis", axisPointer: { type: "shadow" },
          valueFormatter: milliseconds }),
        legend: legend(), grid: grid(),
        xAxis: axis({ type: "value", axisLabel: { formatter: (value) => `${value} ms` } }),
        yAxis: axis({ type: "category", data: rows.map((row) => row.name),
          axisLabel: { width: 120, overflow: "truncate" } }),
        series: ["p50", "p95", "p99"].map((key) => ({
          type: "bar", name: key, data: rows.map((row) => 1000 * row.read[key]), barMaxWidth: 14,
        })),
      });
    },
    rates: () => base({
      tooltip: tooltip({ trigger: "axis", valueFormatter: percent }), grid: grid(),
      xAxis: axis({ type: "time" }),
      yAxis: axis({ type: "value", min: 0, max: 1,
        axisLabel: { formatter: (value) => `${100 * value} %` } }),
      series: [{ type: "line", name: "hit rate", symbol: "none",
        data: data.activity.rates.map(([time, rate]) => [1000 * time, rate]) }],
    }),
    sweeps: () => {
      const rows = data.activity.sweeps;
      return base({
        tooltip: tooltip({ trigger: "axis" }), legend: legend(), grid: grid(),
        xAxis: axis({ type: "category",
          data: rows.map((row, place) => row.time ? moment(1000 * row.time) : `run ${place + 1}`) }),
        yAxis: [axis({ type: "value", name: "files" }),
          axis({ type: "value", axisLabel: { formatter: bytes }, splitLine: { show: false } })],
        series: [
          { type: "bar", name: "removed", data: rows.map((row) => row.removed), barMaxWidth: 28 },
          { type: "line", name: "bytes freed", yAxisIndex: 1, tooltip: { valueFormatter: bytes },
            data: rows.map((row) => row.removed_bytes) },
        ],
      });
    },
    cost: () => {
      const modes = data.plan.modes.filter((mode) => mode.month !== null);
      const items = [...new Set(modes.flatMap((mode) => Object.keys(mode.items)))]
        .filter((item) => modes.some((mode) => mode.items[item]));
      return base({
        tooltip: tooltip({ trigger: "axis", axisPointer: { type: "shadow" }, valueFormatter: dollars }),
        legend: legend(), grid: grid(),
        xAxis: axis({ type: "value", axisLabel: { formatter: (value) => `$${value}` } }),
        yAxis: axis({ type: "category", data: modes.map((mode) => mode.mode).reverse(),
          axisLabel: { width: 130, overflow: "truncate" } }),
        series: items.map((item) => ({
          type: "bar", stack: "all", name: item, barMaxWidth: 28,
          data: modes.map((mode) => mode.items[item] || 0).reverse(),
        })),
      });
    },
    credits: () => base({
      tooltip: tooltip({ trigger: "axis", valueFormatter: bytes }), grid: grid(),
      xAxis: axis({ type: "value", max: data.plan.credits_by_day.length, name: "day",
        nameLocation: "middle", nameGap: 24 }),
      yAxis: axis({ type: "value", min: 0, axisLabel: { formatter: bytes } }),
      series: [{ type: "line", name: "credits", symbol: "none", areaStyle: { opacity: 0.15 },
        data: data.plan.credits_by_day.map((value, place) => [place + 1, value]) }],
    }),
    days: () => {
      const rows = data.history.days;
      const series = [
        { type: "bar", name: "cost in Elastic mode", data: rows.map((row) => row.cost),
          tooltip: { valueFormatter: dollars }, barMaxWidth: 28 },
        { type: "line", name: "least credits", yAxisIndex: 1, data: rows.map((row) => row.balance),
          tooltip: { valueFormatter: (value) => value === null ? "none" : bytes(value) } },
      ];
      return base({
        tooltip: tooltip({ trigger: "axis" }), legend: legend(), grid: grid(),
        xAxis: axis({ type: "category", data: rows.map((row) => day(1000 * row.time)) }),
        yAxis: [axis({ type: "value", axisLabel: { formatter: dollars } }),
          axis({ type: "value", min: 0, axisLabel: { formatter: bytes }, splitLine: { show: false } })],
        series,
      });
    },
  };

  function draw() {
    for (const chart of charts.splice(0)) chart.dispose();
    for (const element of document.querySelectorAll("[data-chart]")) {
      const text = element.getAttribute("aria-label");
      const chart = echarts.init(element, null, { renderer: "svg" });
      chart.setOption(options[element.dataset.chart]());
      element.setAttribute("role", "img");  // the library says the same of its own, less plainly
      element.setAttribute("aria-label", text);
      charts.push(chart);
    }
    document.documentElement.dataset.drawn = charts.length;
  }

  let timer = 0;
  addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(draw, 100);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  matchMedia("print").addEventListener("change", draw);
  draw();
})();
