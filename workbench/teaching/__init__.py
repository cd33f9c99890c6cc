"""Teaching in the browser: lessons, their examples, the job that trains, and what is shown of it."""
