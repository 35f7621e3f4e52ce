import { render } from "preact";
import { App } from "./app";
import { applyTheme, firstTheme } from "./parts/theme";
import "uplot/dist/uPlot.min.css";
import "./style/all.css";

applyTheme(firstTheme());
render(<App />, document.getElementById("page")!);
