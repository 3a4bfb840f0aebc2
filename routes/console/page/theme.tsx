/** Light, dark, or as the system has it. */
import { keep, kept } from "./kept.ts";
import { useEffect, useState } from "preact/hooks";

const STORED_AS = "oatmill-theme";
const THEMES = [["", "System"], ["light", "Light"], ["dark", "Dark"]] as const;

export function ThemeSwitch() {
  const [theme, setTheme] = useState(() => kept("localStorage", STORED_AS) ?? "");
  useEffect(() => {
    keep("localStorage", STORED_AS, theme);
    document.documentElement.style.colorScheme = theme;
    dispatchEvent(new Event("themechange"));
  }, [theme]);
  return (
    <select aria-label="Theme" value={theme} onChange={(e) => setTheme(e.currentTarget.value)}>
      {THEMES.map(([value, label]) => <option key={value} value={value}>{label}</option>)}
    </select>
  );
}
