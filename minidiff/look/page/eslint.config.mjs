import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: ["**/dist/", "**/node_modules/", "**/kernel.mjs"] },
  js.configs.recommended,
  {
    languageOptions: {
      globals: {
        ...globals.browser,
        ...globals.node,
        minidiff: "readonly",
        minidiffForms: "readonly",
      },
    },
    rules: {
      eqeqeq: "error",
      "no-unused-vars": ["error", { varsIgnorePattern: "^_" }],
      "no-shadow": "off",
      "prefer-const": "error",
      "max-lines": ["error", 300],
      "max-len": ["error", { code: 100, ignoreStrings: true, ignoreTemplateLiterals: true }],
    },
  },
];
