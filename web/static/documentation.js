// Shows the OpenAPI document. A file of its own: the page's policy lets no script run that stands in the page.

SwaggerUIBundle({
  url: document.currentScript.dataset.document,
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null, // else the page sends our address to validator.swagger.io
});
